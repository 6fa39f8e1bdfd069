"""Positions are drawn before commits happen, and commits happen in any order: nobody is skipped or overtaken."""

from __future__ import annotations

import asyncio
import random

from sqlalchemy import text

from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.events.emitting import emit
from strata.tenancy.model import Tier
from tests.builders.events import Notebook, Noted, all_told, note, told, until
from tests.builders.platform import Tenantry, admin_of

WRITERS, EACH = 8, 25


async def test_a_writer_that_commits_late_is_waited_for_and_keeps_its_place(
    runtime: Runtime, tenant_on: Tenantry
) -> None:
    context, neighbour, notebook = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED), Notebook()
    async with told(runtime, notebook):
        await note(runtime, context, 0)
        async with runtime.tenants.transaction(context) as session:
            await emit(session, Noted(1))
            # No writer waits for it, and a neighbour's events are none of its business.
            await note(runtime, context, 2)
            await note(runtime, neighbour, 3)
            await until(lambda: notebook.numbers(neighbour) == [3], "the neighbour waits")
            await asyncio.sleep(0.3)
            assert notebook.numbers(context) == [0]
        await all_told(runtime, context)
    assert notebook.numbers(context) == [0, 1, 2]


async def test_a_writer_that_gives_up_is_not_waited_for_any_longer(runtime: Runtime, tenant_on: Tenantry) -> None:
    context, notebook = await tenant_on(Tier.SCHEMA), Notebook()
    async with told(runtime, notebook):
        try:
            async with runtime.tenants.transaction(context) as session:
                await emit(session, Noted(1))
                await note(runtime, context, 2)
                _give_up()
        except ZeroDivisionError:
            await all_told(runtime, context)
    assert notebook.numbers(context) == [2]


async def test_who_has_told_nothing_yet_holds_nobody_up(runtime: Runtime, tenant_on: Tenantry) -> None:
    """An open transaction, a savepoint that was rolled back in it, and a long neighbour."""
    context, neighbour, notebook = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED), Notebook()
    async with (
        told(runtime, notebook),
        runtime.tenants.transaction(context) as session,
        runtime.tenants.transaction(neighbour) as other,
    ):
        await emit(other, Noted(9))
        try:
            async with session.begin_nested():
                await emit(session, Noted(1))
                _give_up()
        except ZeroDivisionError:
            await note(runtime, context, 2)
        await until(lambda: notebook.numbers(context) == [2], "held up by nobody's event")
        await emit(session, Noted(3))
    async with told(runtime, notebook):
        await all_told(runtime, context)
    assert notebook.numbers(context) == [2, 3]


async def test_events_of_one_thing_come_in_the_order_of_its_changes(runtime: Runtime, tenant_on: Tenantry) -> None:
    """Each writer tells the number it made under the row's lock: whatever the commits' order, they come ascending."""
    context, notebook = await tenant_on(Tier.SHARED), Notebook()
    async with runtime.tenants.transaction(context) as session:
        await session.execute(text("INSERT INTO quota (name) VALUES ('counter')"))
    async with told(runtime, notebook):
        await asyncio.gather(*(_count(runtime, context, writer) for writer in range(WRITERS)))
        await all_told(runtime, context)
    counted = [each for each in notebook.heard[context.id] if each.event.number]  # type: ignore[attr-defined]
    assert [each.event.number for each in counted] == list(range(1, WRITERS * EACH + 1))  # type: ignore[attr-defined]
    places = [each.place for each in notebook.heard[context.id]]
    assert places == sorted(places)
    assert len(places) == 2 * WRITERS * EACH


def _give_up() -> None:
    raise ZeroDivisionError


async def _count(runtime: Runtime, context: TenantContext, writer: int) -> None:
    chance = random.Random(writer)
    for _ in range(EACH):
        async with runtime.tenants.transaction(context) as session:
            # Something beside the row, first: positions and floors are drawn in every order there is.
            await emit(session, Noted(0, writer))
            await asyncio.sleep(chance.random() * 0.003)
            number = await session.scalar(
                text("UPDATE quota SET used = used + 1 WHERE name = 'counter' RETURNING used")
            )
            await emit(session, Noted(number, writer))
            await asyncio.sleep(chance.random() * 0.003)


async def test_many_events_in_a_transaction_take_one_lock(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    async with runtime.tenants.transaction(context) as session, admin_of(runtime, context.placement.cell) as admin:
        for number in range(50):
            await emit(session, Noted(number))
        locks = await admin.fetchval(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"
            " AND classid::bigint = strata.emitter_key($1)::bigint & 4294967295",
            context.id,
        )
    assert locks == 1


async def test_floors_compare_across_the_end_of_their_31_bits(runtime: Runtime, tenant_on: Tenantry) -> None:
    context, notebook = await tenant_on(Tier.DEDICATED), Notebook()
    async with admin_of(runtime, context.placement.cell) as admin:
        await admin.execute("SELECT setval('strata.outbox_position', 2147483646)")
    async with told(runtime, notebook):
        async with runtime.tenants.transaction(context) as session:
            await emit(session, Noted(1))
            await note(runtime, context, 2, 3)
            await asyncio.sleep(0.2)
            assert notebook.numbers(context) == []
        await all_told(runtime, context)
        await note(runtime, context, 4)
        await all_told(runtime, context)
    assert notebook.numbers(context) == [1, 2, 3, 4]
