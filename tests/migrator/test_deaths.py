"""A worker that is killed, or sleeps and wakes, at every point between two acts: the move goes on by itself, and holds."""

from __future__ import annotations

import asyncio
import signal

import pytest
from sqlalchemy import update

from strata.migrator import faults
from strata.migrator.errors import SupersededError
from strata.migrator.faults import InjectedError
from strata.migrator.models import ATTEMPTS, MoveRow
from strata.migrator.moves import Move, Place
from strata.migrator.phases import Phase, Wish
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.inventory import stocked
from tests.builders.move_worker import END_WITHIN_S, has_stopped, move_worker, wake
from tests.builders.moving import Movers, Neighbour
from tests.builders.platform import ACTOR, FIRST_CELL, SECOND_CELL, SECOND_SERVER, Platform, Tenantry, admin_of
from tests.builders.site import Site
from tests.builders.traffic import assert_kept, traffic

_STEPS = [
    "pending",
    "preparing",
    "copying",
    "catching_up",
    "verifying",
    "ready",
    "cutting_over",
    "retaining",
    "completing",
]
_WINDOW = [f"cutting_over.{act}" for act in ("closed", "drained", "applied", "opened")]
_INSIDE = [
    "preparing.registered",
    "copying.published",
    "copying.slot",
    "copying.copied",
    "verifying.slot",
    "retaining.retired",
    "completing.removed",
]
EVERY_POINT = [*(f"{step}.{at}" for step in _STEPS for at in ("begin", "done", "advanced")), *_INSIDE, *_WINDOW]
# While it is retained, nothing after that comes.
UP_TO_THE_RETENTION = [
    point
    for point in EVERY_POINT
    if not point.startswith("completing") and point not in {"retaining.done", "retaining.advanced"}
]
# The others are walked in `make test-slow`.
QUICK_POINTS: list[tuple[str, ...]] = [("cutting_over.opened", SECOND_CELL)]
BACKWARD = [f"rolling_back.{at}" for at in ("begin", "closed", "drained", "applied", "opened", "done", "advanced")]
WITHDRAWING = [f"withdrawing.{at}" for at in ("begin", "retired", "removed", "done")]

# The catalog says that an attempt is over; the worker dies before the fence has been opened, or the other row forgotten.
OUT_CALLED_OFF = [
    ("cutting_over.opened=fail,cutting_over.called_off=kill", FIRST_CELL, None),
    ("cutting_over.closed=fail,cutting_over.called_off=kill", SECOND_CELL, Wish.CANCEL),
    ("cutting_over.opened=fail,ready.reopened=kill", SECOND_CELL, Wish.CANCEL),
    pytest.param("cutting_over.opened=fail,cutting_over.called_off=kill", SECOND_CELL, None, marks=pytest.mark.slow),
    pytest.param(
        "cutting_over.opened=fail,cutting_over.called_off=kill", FIRST_CELL, Wish.CANCEL, marks=pytest.mark.slow
    ),
]
BACK_CALLED_OFF = [
    ("rolling_back.opened=fail,rolling_back.called_off=kill", FIRST_CELL, Wish.COMPLETE),
    ("rolling_back.opened=fail,retaining.reopened=kill", SECOND_CELL, Wish.COMPLETE),
    pytest.param(
        "rolling_back.closed=fail,rolling_back.called_off=kill", SECOND_CELL, Wish.ROLL_BACK, marks=pytest.mark.slow
    ),
]


def _points(quick: list[tuple[str, ...]], every: list[tuple[str, ...]]) -> list[object]:
    return [pytest.param(*p, marks=[] if p in quick else [pytest.mark.slow]) for p in every]


@pytest.mark.parametrize(
    ("point", "cell"),
    _points(QUICK_POINTS, [(point, cell) for point in EVERY_POINT for cell in (FIRST_CELL, SECOND_CELL)]),
)
async def test_killed(
    movers: Movers,
    moving_platform: Platform,
    mover_tenant: Tenantry,
    moving_site: Site,
    neighbour: Neighbour,
    point: str,
    cell: str,
) -> None:
    context = await mover_tenant(Tier.SHARED)
    async with traffic(moving_site, context, writers=2) as ledger:
        move = await movers.start(context, Tier.SCHEMA, cell=cell)
        async with (
            move_worker(moving_platform, faults=f"{point}=kill", tenant=context.id) as worker,
            asyncio.timeout(END_WITHIN_S),
        ):
            assert await worker.wait() == -signal.SIGKILL
        moved = await _recovered(movers, move, Phase.COMPLETED)
    await assert_kept(movers.runtime, context, ledger)
    assert await movers.remains(moved.id) == {}
    assert await movers.homes_of(context) == {cell: [moved.target.schema_name]}
    assert moved.write_block_ms is not None
    assert moved.write_block_ms > 0
    await neighbour.assert_untouched()


async def test_asleep_before_the_flip_and_awake_when_the_source_is_open_again(
    movers: Movers, moving_platform: Platform, mover_tenant: Tenantry
) -> None:
    """Between the recovery and the next flip, nothing but the attempt's number tells the old flip from a right one."""
    context = await mover_tenant(Tier.SHARED)
    recovered, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        recovered.set()
        await go_on.wait()

    move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL)
    async with move_worker(moving_platform, faults="cutting_over.opened=stop", tenant=context.id) as sleeper:
        await has_stopped(sleeper)
        faults.arm("ready.begin", hold, context.id)
        async with movers.keeping():
            await recovered.wait()
            wake(sleeper)
            await asyncio.sleep(2)
            assert (await movers.runtime.contexts.fresh(context.id)).placement == context.placement
            await stocked(movers.runtime, context, skus=1)
            go_on.set()
            await movers.until(move, Phase.COMPLETED)
    assert (await movers.runtime.contexts.fresh(context.id)).placement.cell == SECOND_CELL


@pytest.mark.slow
@pytest.mark.parametrize("point", UP_TO_THE_RETENTION)
async def test_asleep_while_another_takes_over_and_then_awake(
    movers: Movers, moving_platform: Platform, mover_tenant: Tenantry, moving_site: Site, point: str
) -> None:
    context = await mover_tenant(Tier.SHARED)
    async with traffic(moving_site, context, writers=2) as ledger:
        move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL, retention_s=3600)
        async with move_worker(moving_platform, faults=f"{point}=stop", tenant=context.id) as sleeper:
            await has_stopped(sleeper)
            async with movers.keeping():
                await movers.until(move, Phase.RETAINING)
                before = await movers.runtime.contexts.fresh(context.id)
                wake(sleeper)
                await asyncio.sleep(2)
                assert (await movers.runtime.contexts.fresh(context.id)).placement == before.placement
                assert sleeper.returncode is None
                await movers.desk.ask(move.id, Wish.COMPLETE, ACTOR)
                await movers.until(move, Phase.COMPLETED)
    await assert_kept(movers.runtime, context, ledger)
    assert await movers.remains(move.id) == {}


@pytest.mark.slow
@pytest.mark.parametrize("point", [*BACKWARD, *WITHDRAWING])
async def test_killed_on_the_way_back(
    movers: Movers, moving_platform: Platform, mover_tenant: Tenantry, moving_site: Site, point: str
) -> None:
    context = await mover_tenant(Tier.SHARED)
    async with traffic(moving_site, context, writers=2) as ledger:
        move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL, retention_s=3600)
        async with movers.working(move):
            await movers.until(move, Phase.RETAINING)
        await movers.desk.ask(move.id, Wish.ROLL_BACK, ACTOR)
        async with (
            move_worker(moving_platform, faults=f"{point}=kill", tenant=context.id) as worker,
            asyncio.timeout(END_WITHIN_S),
        ):
            assert await worker.wait() == -signal.SIGKILL
        back = await _recovered(movers, move, Phase.ROLLED_BACK)
    await assert_kept(movers.runtime, context, ledger)
    assert await movers.remains(move.id) == {}
    assert await movers.homes_of(context) == {context.placement.cell: ["shared"]}
    assert back.write_block_ms is not None
    assert back.write_block_ms > 0


@pytest.mark.parametrize(("faults", "cell", "wish"), OUT_CALLED_OFF)
async def test_killed_before_what_was_called_off_is_undone(
    movers: Movers, moving_platform: Platform, mover_tenant: Tenantry, faults: str, cell: str, wish: Wish | None
) -> None:
    """The catalog has the move in `ready` again, and nothing in it says that the fence is shut."""
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, skus=1)
    move = await movers.start(context, Tier.SCHEMA, cell=cell)
    async with move_worker(moving_platform, faults=faults, tenant=context.id) as worker, asyncio.timeout(END_WITHIN_S):
        assert await worker.wait() == -signal.SIGKILL
    if wish is not None:
        await movers.desk.ask(move.id, wish, ACTOR)
    ended = await _recovered(movers, move, Phase.COMPLETED if wish is None else Phase.CANCELLED)
    await _is_open_at_its_end(movers, context, ended, ended.target if wish is None else ended.source)


@pytest.mark.parametrize(("faults", "cell", "wish"), BACK_CALLED_OFF)
async def test_killed_before_a_way_back_that_was_called_off_is_undone(
    movers: Movers, moving_platform: Platform, mover_tenant: Tenantry, faults: str, cell: str, wish: Wish
) -> None:
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, skus=1)
    move = await movers.start(context, Tier.SCHEMA, cell=cell, retention_s=3600)
    async with movers.working(move):
        await movers.until(move, Phase.RETAINING)
    await movers.desk.ask(move.id, Wish.ROLL_BACK, ACTOR)
    async with move_worker(moving_platform, faults=faults, tenant=context.id) as worker, asyncio.timeout(END_WITHIN_S):
        assert await worker.wait() == -signal.SIGKILL
    await movers.desk.ask(move.id, wish, ACTOR)
    ended = await _recovered(movers, move, Phase.COMPLETED if wish is Wish.COMPLETE else Phase.ROLLED_BACK)
    await _is_open_at_its_end(movers, context, ended, ended.target if wish is Wish.COMPLETE else ended.source)


@pytest.mark.parametrize("point", ["completing.done", pytest.param("completing.removed", marks=pytest.mark.slow)])
async def test_killed_when_the_database_that_was_left_has_gone(
    movers: Movers, moving_platform: Platform, mover_tenant: Tenantry, point: str
) -> None:
    """The move has not ended yet, and whoever takes it over looks for both of its homes."""
    context = await mover_tenant(Tier.DEDICATED)
    await stocked(movers.runtime, context, skus=1)
    move = await movers.start(context, Tier.SHARED, cell=SECOND_CELL)
    async with (
        move_worker(moving_platform, faults=f"{point}=kill", tenant=context.id) as worker,
        asyncio.timeout(END_WITHIN_S),
    ):
        assert await worker.wait() == -signal.SIGKILL
    await _recovered(movers, move, Phase.COMPLETED)
    assert await movers.remains(move.id) == {}
    assert await movers.homes_of(context) == {SECOND_CELL: ["shared"]}
    assert context.placement.cell not in {cell.name for cell in await movers.runtime.registry.cells()}


async def test_asleep_before_it_makes_the_new_home_and_awake_when_that_has_been_removed(
    movers: Movers, moving_platform: Platform, mover_tenant: Tenantry
) -> None:
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, skus=1)
    await _cancelled_while_it_sleeps(movers, moving_platform, context, "preparing.registered")
    async with admin_of(movers.runtime, SECOND_CELL) as admin:
        assert await admin.fetch("SELECT FROM pg_roles WHERE rolname = $1", f"t_{context.id.hex}") == []
    assert await movers.homes_of(context) == {context.placement.cell: ["shared"]}


async def test_asleep_before_it_makes_a_slot_and_awake_when_the_move_has_ended(
    movers: Movers, moving_platform: Platform, mover_tenant: Tenantry
) -> None:
    context = await mover_tenant(Tier.SHARED)
    move = await _cancelled_while_it_sleeps(movers, moving_platform, context, "copying.published")
    assert await movers.remains(move.id) == {}


async def test_asleep_before_it_copies_again_and_awake_when_the_tenant_has_moved(
    movers: Movers, moving_platform: Platform, mover_tenant: Tenantry
) -> None:
    """A copy begins by dropping the streams of the one before: by now they are the way back."""
    context = await mover_tenant(Tier.SHARED)

    async def die() -> None:
        raise InjectedError

    faults.arm("copying.copied", die, context.id)
    move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL, retention_s=3600)
    assert (await movers.work(move)).phase is Phase.FAILED
    await movers.desk.ask(move.id, Wish.RETRY, ACTOR)
    async with move_worker(moving_platform, faults="copying.begin=stop", heartbeat_s=60, tenant=context.id) as sleeper:
        await has_stopped(sleeper)
        async with movers.keeping():
            await movers.until(move, Phase.RETAINING)
            wake(sleeper)
            await asyncio.sleep(5)
            await movers.desk.ask(move.id, Wish.ROLL_BACK, ACTOR)
            await movers.until(move, Phase.ROLLED_BACK)
    assert await movers.remains(move.id) == {}


async def test_who_has_lost_the_move_makes_no_database(movers: Movers, mover_tenant: Tenantry) -> None:
    context = await mover_tenant(Tier.SHARED)
    move = await movers.start(context, Tier.DEDICATED, server=SECOND_SERVER)

    async def lose() -> None:
        async with movers.desk.moves.writing() as session:
            await session.execute(update(MoveRow).where(MoveRow.id == move.id).values(attempt=ATTEMPTS.next_value()))

    faults.arm("preparing.registered", lose, context.id)
    with pytest.raises(SupersededError):
        await movers.work(move)
    async with admin_of(movers.runtime, SECOND_CELL) as admin:
        made = f"%{move.target.cell.replace('-', '_')}"
        assert await admin.fetch("SELECT FROM pg_database WHERE datname LIKE $1", made) == []
    await movers.desk.ask(move.id, Wish.CANCEL, ACTOR)
    assert (await movers.work(move)).phase is Phase.CANCELLED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("until", "wish", "point", "end"),
    [
        (Phase.READY, Wish.CANCEL, "cancelling.done", Phase.CANCELLED),
        (Phase.RETAINING, Wish.ROLL_BACK, "withdrawing.done", Phase.ROLLED_BACK),
    ],
)
async def test_killed_when_the_database_it_did_not_stay_in_has_gone(
    movers: Movers,
    moving_platform: Platform,
    mover_tenant: Tenantry,
    until: Phase,
    wish: Wish,
    point: str,
    end: Phase,
) -> None:
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, skus=1)
    move = await movers.start(
        context, Tier.DEDICATED, server=SECOND_SERVER, hold=until is Phase.READY, retention_s=3600
    )
    async with movers.working(move):
        await movers.until(move, until)
    await movers.desk.ask(move.id, wish, ACTOR)
    async with (
        move_worker(moving_platform, faults=f"{point}=kill", tenant=context.id) as worker,
        asyncio.timeout(END_WITHIN_S),
    ):
        assert await worker.wait() == -signal.SIGKILL
    await _recovered(movers, move, end)
    assert await movers.remains(move.id) == {}
    assert await movers.homes_of(context) == {context.placement.cell: ["shared"]}
    assert move.target.cell not in {cell.name for cell in await movers.runtime.registry.cells()}


async def _cancelled_while_it_sleeps(movers: Movers, platform: Platform, context: TenantContext, point: str) -> Move:
    """A worker halts there; another has taken its move up and ended it when it wakes, and it has had time to go on."""
    move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL, hold=True)
    async with move_worker(platform, faults=f"{point}=stop", heartbeat_s=60, tenant=context.id) as sleeper:
        await has_stopped(sleeper)
        async with movers.keeping():
            await movers.until(move, Phase.READY)
            await movers.desk.ask(move.id, Wish.CANCEL, ACTOR)
            await movers.until(move, Phase.CANCELLED)
            wake(sleeper)
            await asyncio.sleep(5)
    return move


async def _is_open_at_its_end(movers: Movers, context: TenantContext, ended: Move, place: Place) -> None:
    now = await movers.runtime.contexts.fresh(context.id)
    assert (now.placement.cell, now.placement.schema_name) == (place.cell, place.schema_name)
    await stocked(movers.runtime, now, prefix="L")
    assert await movers.remains(ended.id) == {}
    assert await movers.homes_of(context) == {place.cell: [place.schema_name]}


async def _recovered(movers: Movers, move: Move, phase: Phase) -> Move:
    async with movers.keeping():
        return await movers.until(move, phase)
