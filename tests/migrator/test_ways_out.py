"""Cancelled, held, rolled back, refused: the tenant works all the while, and what was made for the move goes."""

from __future__ import annotations

import asyncio

import pytest

from strata.migrator import faults, fence
from strata.migrator.errors import MoveUnderWayError, NotFitError, WishRefusedError
from strata.migrator.faults import InjectedError
from strata.migrator.phases import Phase, Wish
from strata.platform.database.names import quoted
from strata.tenancy.model import Tier
from tests.builders.contexts import eventually
from tests.builders.inventory import stocked
from tests.builders.moving import Movers, Neighbour
from tests.builders.platform import ACTOR, SECOND_CELL, SECOND_SERVER, Tenantry, admin_of
from tests.builders.site import Site
from tests.builders.traffic import assert_kept, traffic

BACK = [
    (Tier.SHARED, Tier.SCHEMA, {}),
    (Tier.SCHEMA, Tier.DEDICATED, {"server": SECOND_SERVER}),
]

SLOW_TO_CANCEL = [Phase.PREPARING, Phase.CATCHING_UP, Phase.VERIFYING, Phase.READY]


@pytest.mark.slow
@pytest.mark.parametrize(("tier", "to", "place"), BACK, ids=str)
async def test_a_rollback_keeps_what_was_written_since_and_the_tenant_may_move_again(
    movers: Movers,
    mover_tenant: Tenantry,
    moving_site: Site,
    neighbour: Neighbour,
    tier: Tier,
    to: Tier,
    place: dict[str, str],
) -> None:
    context = await mover_tenant(tier)
    async with traffic(moving_site, context) as ledger:
        move = await movers.start(context, to, retention_s=3600, **place)  # type: ignore[arg-type]
        async with movers.working(move):
            await movers.until(move, Phase.RETAINING)
            written = len(ledger.entries)
            await eventually(lambda: len(ledger.entries) > written + 5)
            await movers.desk.ask(move.id, Wish.ROLL_BACK, ACTOR)
            rolled_back = await movers.until(move, Phase.ROLLED_BACK)
    now = await movers.runtime.contexts.fresh(context.id)
    assert (now.placement.tier, now.placement.cell) == (tier, context.placement.cell)
    await assert_kept(movers.runtime, context, ledger)
    assert await movers.remains(move.id) == {}
    assert await movers.homes_of(context) == {rolled_back.source.cell: [rolled_back.source.schema_name]}
    await neighbour.assert_untouched()
    moved = await movers.move(now, to, **place)
    assert await movers.remains(moved.id) == {}


async def test_a_fence_that_a_dead_rollback_has_left_shut_is_opened_again(
    movers: Movers, mover_tenant: Tenantry
) -> None:
    """The worker died between the abort, with which the move is retained again, and the reopening."""
    context = await mover_tenant(Tier.SHARED)
    move = await movers.start(context, Tier.SHARED, cell=SECOND_CELL, retention_s=3600)
    async with movers.working(move):
        await movers.until(move, Phase.RETAINING)
    retained = await movers.desk.moves.get(move.id)
    async with admin_of(movers.runtime, SECOND_CELL) as admin:
        await fence.close_source(
            admin, context.id, retained.target_epoch or 0, retained.attempt, reign=retained.attempt
        )
    await movers.desk.ask(move.id, Wish.COMPLETE, ACTOR)
    assert (await movers.work(move)).phase is Phase.COMPLETED


@pytest.mark.parametrize(
    "phase", [Phase.COPYING, *(pytest.param(each, marks=pytest.mark.slow) for each in SLOW_TO_CANCEL)]
)
async def test_cancelled_in_any_phase_nothing_is_left(movers: Movers, mover_tenant: Tenantry, phase: Phase) -> None:
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, on_hand=3)
    there = asyncio.Event()

    async def stay() -> None:
        there.set()
        await asyncio.sleep(60)

    faults.arm(f"{phase}.begin", stay)
    move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL)
    working = asyncio.create_task(movers.keeper().work_on(move.id))
    await there.wait()
    await movers.desk.ask(move.id, Wish.CANCEL, ACTOR)
    async with asyncio.timeout(30):
        cancelled = await working
    assert cancelled is not None
    assert cancelled.phase is Phase.CANCELLED
    assert await movers.remains(move.id) == {}
    assert await movers.homes_of(context) == {context.placement.cell: ["shared"]}
    assert (await movers.runtime.contexts.fresh(context.id)).placement == context.placement


async def test_a_cancel_that_comes_while_a_retry_begins_is_heard(movers: Movers, mover_tenant: Tenantry) -> None:
    context = await mover_tenant(Tier.SHARED)

    async def die() -> None:
        raise InjectedError

    async def cancel() -> None:
        await movers.desk.ask(move.id, Wish.CANCEL, ACTOR)

    faults.arm("copying.begin", die)
    move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL)
    assert (await movers.work(move)).phase is Phase.FAILED
    faults.arm("failed.done", cancel)
    await movers.desk.ask(move.id, Wish.RETRY, ACTOR)
    assert (await movers.work(move)).phase is Phase.CANCELLED
    assert await movers.remains(move.id) == {}


async def test_cancelled_where_nobody_has_heard_that_the_cut_over_was_called_off(
    movers: Movers, mover_tenant: Tenantry
) -> None:
    """A standby that was promoted meanwhile has the fence as it was shut; what is written here is what it has."""
    context = await mover_tenant(Tier.SHARED)

    async def die() -> None:
        raise InjectedError

    async def stay() -> None:
        await asyncio.Event().wait()

    async def shut_as_before() -> None:
        async with admin_of(movers.runtime, context.placement.cell) as admin:
            await admin.execute(
                "UPDATE strata.fence SET state = 'moving', attempt = attempt - 1 WHERE tenant_id = $1", context.id
            )
        faults.arm("ready.begin", stay)
        await movers.desk.ask(move.id, Wish.CANCEL, ACTOR)

    faults.arm("cutting_over.drained", die)
    faults.arm("ready.reopened", shut_as_before)
    move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL)
    assert (await movers.work(move)).phase is Phase.CANCELLED
    await stocked(movers.runtime, context, skus=1)


async def test_held_it_stops_before_the_cut_over_until_somebody_says_so(movers: Movers, mover_tenant: Tenantry) -> None:
    context = await mover_tenant(Tier.SHARED)
    move = await movers.start(context, Tier.SCHEMA, hold=True)
    async with movers.working(move):
        await movers.until(move, Phase.READY)
        with pytest.raises(WishRefusedError):
            await movers.desk.ask(move.id, Wish.ROLL_BACK, ACTOR)
        with pytest.raises((MoveUnderWayError, NotFitError)):
            await movers.start(context, Tier.DEDICATED)
        await asyncio.sleep(0.5)
        assert (await movers.desk.moves.get(move.id)).phase is Phase.READY
        await movers.desk.ask(move.id, Wish.CUT_OVER, ACTOR)
        await movers.until(move, Phase.COMPLETED)


async def test_a_row_that_differs_refuses_the_cut_over_and_is_named(movers: Movers, mover_tenant: Tenantry) -> None:
    context = await mover_tenant(Tier.SHARED)
    goods = await stocked(movers.runtime, context, skus=5, on_hand=2)

    async def spoil() -> None:
        async with admin_of(movers.runtime, context.placement.cell) as admin:
            table = f"{quoted(f't_{context.id.hex}')}.product"
            await admin.execute(f"UPDATE {table} SET name = 'spoilt' WHERE sku = $1", goods.skus[0])

    faults.arm("verifying.begin", spoil)
    move = await movers.start(context, Tier.SCHEMA)
    failed = await movers.work(move)
    assert failed.phase is Phase.FAILED
    assert failed.failure is not None
    assert failed.failure.code == "verification-failed"
    assert f"strata migrate retry {move.id}" in failed.failure.next
    [difference] = failed.failure.extra["differences"]
    assert (difference["table"], difference["kind"]) == ("product", "changed")
    assert (await movers.runtime.contexts.fresh(context.id)).placement == context.placement
    await movers.desk.ask(move.id, Wish.RETRY, ACTOR)
    assert (await movers.work(move)).phase is Phase.COMPLETED
    assert await movers.remains(move.id) == {}


async def test_truncate_and_ddl_end_the_move_with_the_reason_and_leave_the_tenant_alone(
    movers: Movers, mover_tenant: Tenantry
) -> None:
    context = await mover_tenant(Tier.SCHEMA)
    await stocked(movers.runtime, context, on_hand=1)

    async def truncate() -> None:
        async with admin_of(movers.runtime, context.placement.cell) as admin:
            await admin.execute(f"TRUNCATE {quoted(context.placement.schema_name)}.idempotency")

    faults.arm("catching_up.begin", truncate)
    failed = await movers.work(await movers.start(context, Tier.DEDICATED))
    assert failed.failure is not None
    assert failed.failure.code == "table-truncated"
    assert context.slug in failed.failure.tenant
    async with movers.runtime.tenants.reading(context):
        pass
    await movers.desk.ask(failed.id, Wish.CANCEL, ACTOR)
    assert (await movers.work(failed)).phase is Phase.CANCELLED
    assert await movers.remains(failed.id) == {}
