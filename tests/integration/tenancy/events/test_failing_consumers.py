"""A consumer that fails holds up itself, for one tenant, for a while: then the event is a dead letter that can be seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from strata.platform.settings import EventSettings
from strata.runtime import Runtime
from strata.tenancy.errors import TenantSuspendedError
from strata.tenancy.events.consumers import TenantConsumer
from strata.tenancy.events.dead_letters import NoDeadLetterError, dead_letters, discard, retry
from strata.tenancy.events.types import Delivery
from strata.tenancy.model import TenantStatus, Tier
from strata.tenancy.session import TenantSession
from tests.builders.events import Notebook, Noted, all_told, note, told, until, waiting
from tests.builders.platform import ACTOR, Tenantry, second_process


@pytest.fixture(scope="module")
async def impatient(runtime: Runtime) -> AsyncIterator[Runtime]:
    """A relay's process that gives an event three tries, quickly."""
    async with second_process(runtime, events=EventSettings(tries=3, longest_pause_s=0.2)) as made:
        yield made


async def test_poison_blocks_its_consumer_for_its_tenant_and_is_then_put_aside(
    runtime: Runtime, impatient: Runtime, tenant_on: Tenantry
) -> None:
    context, neighbour = await tenant_on(Tier.SCHEMA), await tenant_on(Tier.SHARED)
    poisoned, well = Notebook("test.poisoned", fails_at=3), Notebook("test.well")
    async with told(impatient, poisoned, well):
        await note(runtime, context, 1, 2, 3, 4)
        await note(runtime, neighbour, 1, 2, 4)
        await until(lambda: well.numbers(context) == [1, 2, 3, 4], "the other consumer waits")
        await until(lambda: poisoned.numbers(neighbour) == [1, 2, 4], "the other tenant waits")
        await all_told(runtime, context)
    assert poisoned.numbers(context) == [1, 2, 4]
    (letter,) = await dead_letters(runtime.tenants, context)
    assert (letter.consumer, letter.type, letter.attempts) == ("test.poisoned", "test.noted", 3)
    assert letter.payload == {"number": 3, "writer": 0}
    assert "this one I cannot deal with" in letter.error

    with pytest.raises(RuntimeError):
        await retry(runtime.tenants, context, (poisoned.consumer,), letter.id)
    assert len(await dead_letters(runtime.tenants, context)) == 1
    poisoned.fails_at = None
    await retry(runtime.tenants, context, (poisoned.consumer,), letter.id)
    assert poisoned.numbers(context) == [1, 2, 4, 3]
    assert poisoned.heard[context.id][-1].replayed
    assert await dead_letters(runtime.tenants, context) == []
    with pytest.raises(NoDeadLetterError):
        await discard(runtime.tenants, context, letter.id)


async def test_an_effect_and_its_mark_are_one(runtime: Runtime, impatient: Runtime, tenant_on: Tenantry) -> None:
    """A consumer that fails after its effect has none; one that comes again after its effect does nothing."""
    context = await tenant_on(Tier.SHARED)
    seen: list[int] = []

    async def effect(session: TenantSession, deliveries: Sequence[Delivery]) -> None:
        seen.extend(each.event.number for each in deliveries)  # type: ignore[attr-defined]
        if len(seen) == 1:
            message = "once"
            raise RuntimeError(message)

    notebook = Notebook()
    notebook.consumer = TenantConsumer("test.effect", (Noted,), effect)
    async with told(impatient, notebook):
        await note(runtime, context, 1)
        await all_told(runtime, context)
        assert seen == [1, 1]
    await note(runtime, context, 2)
    async with told(impatient, notebook):
        await all_told(runtime, context)
    assert seen == [1, 1, 2]


async def test_what_is_out_of_reach_is_waited_for_without_counting(
    runtime: Runtime, impatient: Runtime, tenant_on: Tenantry
) -> None:
    context, notebook = await tenant_on(Tier.SHARED), Notebook()
    notebook.out_of_reach = True
    async with told(impatient, notebook):
        await note(runtime, context, 1)
        await until(lambda: notebook.calls > 5, "not tried again")
        notebook.out_of_reach = False
        await all_told(runtime, context)
    assert notebook.numbers(context) == [1]
    assert await dead_letters(runtime.tenants, context) == []


async def test_a_suspended_tenants_events_wait_until_it_is_back(
    runtime: Runtime, impatient: Runtime, tenant_on: Tenantry
) -> None:
    context = await tenant_on(Tier.SHARED)
    seen: list[int] = []

    async def effect(session: TenantSession, deliveries: Sequence[Delivery]) -> None:
        seen.extend(each.event.number for each in deliveries)  # type: ignore[attr-defined]

    notebook = Notebook()
    notebook.consumer = TenantConsumer("test.effect", (Noted,), effect)
    await note(runtime, context, 1)
    await runtime.directory.set_status(context.slug, TenantStatus.SUSPENDED, "unpaid", ACTOR)
    with pytest.raises(TenantSuspendedError):
        await note(runtime, await runtime.contexts.fresh(context.id), 2)
    async with told(impatient, notebook):
        await asyncio.sleep(0.2)
        assert await waiting(runtime, context) == 1
        await runtime.directory.set_status(context.slug, TenantStatus.ACTIVE, None, ACTOR)
        await all_told(runtime, context)
    assert seen == [1]
    assert await dead_letters(runtime.tenants, context) == []


async def test_tenants_that_cannot_be_told_do_not_hide_the_others(runtime: Runtime, tenant_on: Tenantry) -> None:
    """However many they are: here, as many as one question to the outbox names."""
    stuck = await tenant_on(Tier.SHARED)
    neighbour, notebook, seen = await tenant_on(Tier.SHARED), Notebook(), Notebook()

    async def effect(session: TenantSession, _deliveries: Sequence[Delivery]) -> None:
        assert session.info["tenant_id"] != stuck.id

    notebook.consumer = TenantConsumer("test.effect", (Noted,), effect)
    await note(runtime, stuck, 1)
    await runtime.directory.set_status(stuck.slug, TenantStatus.SUSPENDED, "unpaid", ACTOR)
    few = EventSettings(tenants_at_a_look=1, longest_pause_s=0.2)
    async with second_process(runtime, events=few) as other, told(other, notebook, seen):
        await note(runtime, neighbour, 1)
        await all_told(runtime, neighbour)
        assert await waiting(runtime, stuck) == 1
    assert seen.numbers(neighbour) == [1]


async def test_a_tenant_that_is_deleted_takes_its_events_along(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    await note(runtime, context, 1)
    removal = await runtime.provisioning.delete(context.slug, ACTOR)
    assert removal.remains["undelivered events"] == 0
    assert await waiting(runtime, context) == 0
