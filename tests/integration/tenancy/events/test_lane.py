"""What a lane does while there is nothing for it to do, however long that lasts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import text

from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.events.emitting import emit
from strata.tenancy.events.lane import Lane
from strata.tenancy.events.outbox import CellOutbox
from strata.tenancy.events.remainders import Outboxes
from strata.tenancy.model import Tier
from tests.builders.events import Notebook, Noted, note
from tests.builders.platform import Tenantry

A_LONG_TIME = 1100
"""Turns; twice as long a pause after each has no number any more."""
SOON_S = 0.5

LaneOf = Callable[..., Awaitable[tuple[TenantContext, Lane]]]


@pytest.fixture
async def lane_of(runtime: Runtime, tenant_on: Tenantry) -> AsyncIterator[LaneOf]:
    """Of a new tenant's, whom no relay serves: its turns are the test's."""
    async with AsyncExitStack() as stack:

        async def make(*notebooks: Notebook, longest_pause_s: float = 5.0) -> tuple[TenantContext, Lane]:
            context = await tenant_on(Tier.SHARED)
            outbox = CellOutbox(runtime.registry, context.placement.cell)
            stack.push_async_callback(outbox.close)
            lane = Lane(
                context.id,
                outbox,
                Outboxes(runtime.catalog_engine, runtime.registry),
                runtime.tenants,
                runtime.contexts,
                [notebook.consumer for notebook in notebooks],
                runtime.settings.events.model_copy(update={"longest_pause_s": longest_pause_s}),
            )
            return context, lane

        yield make


async def test_events_behind_a_transaction_that_stays_open_are_looked_for_soon(
    runtime: Runtime, lane_of: LaneOf
) -> None:
    """However long it has been open: when it ends, they are told as promptly as after a short one."""
    context, lane = await lane_of(Notebook())
    async with runtime.tenants.transaction(context) as session:
        await emit(session, Noted(1))
        await note(runtime, context, 2)
        for _ in range(A_LONG_TIME):
            await lane.turn()
        assert lane.rests_until < time.monotonic() + SOON_S


async def test_who_is_out_of_reach_for_long_does_not_hold_up_the_others(runtime: Runtime, lane_of: LaneOf) -> None:
    away, other = Notebook("test.away"), Notebook("test.other")
    context, lane = await lane_of(away, other, longest_pause_s=0.0001)
    away.out_of_reach = True
    await note(runtime, context, 1)
    while away.calls < A_LONG_TIME:
        await lane.turn()
    await note(runtime, context, 2)
    await lane.turn()
    assert other.numbers(context) == [1, 2]


async def test_what_a_tenant_that_is_gone_has_left_unsettled_is_not_asked_for_at_once_again(
    runtime: Runtime, lane_of: LaneOf
) -> None:
    context, lane = await lane_of(Notebook())
    async with runtime.tenants.transaction(context) as session:
        await emit(session, Noted(1))
        await note(runtime, context, 2)
        async with runtime.catalog_engine.begin() as catalog:
            await catalog.execute(text("UPDATE tenant SET status = 'closed' WHERE id = :id"), {"id": context.id})
        await runtime.contexts.announce(context.id)
        await lane.turn()
        assert time.monotonic() < lane.rests_until < time.monotonic() + SOON_S
