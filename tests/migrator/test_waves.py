"""Waves: many tenants, a few at a time; one that cannot be moved keeps nobody else back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from strata.migrator import faults
from strata.migrator.errors import WishRefusedError
from strata.migrator.phases import Phase, Wish
from strata.migrator.waves.desk import Pace, UnknownTenantsError, WaveOrder, WaveWish
from strata.migrator.waves.driver import LostError
from strata.migrator.waves.models import WaveState
from strata.migrator.waves.store import Outcome, Wave
from strata.migrator.waves.window import Window
from strata.moving import wave_driver
from strata.platform.database.names import quoted
from strata.tenancy.catalog.tables import DrainKind
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.inventory import stocked
from tests.builders.move_worker import move_worker
from tests.builders.moving import Movers
from tests.builders.platform import ACTOR, FIRST_CELL, FIRST_SERVER, SECOND_CELL, Platform, Tenantry, admin_of

pytestmark = pytest.mark.timeout(300)


async def poisoned(movers: Movers, make: Tenantry) -> TenantContext:
    """A tenant of which changes could not be told: no move can be begun."""
    context = await make(Tier.SCHEMA)
    async with admin_of(movers.runtime, FIRST_CELL) as admin:
        await admin.execute(f"ALTER TABLE {quoted(context.placement.schema_name)}.product REPLICA IDENTITY NOTHING")
    return context


def to_second_cell(tenants: list[TenantContext], **pace: object) -> WaveOrder:
    slugs = tuple(each.slug for each in tenants)
    return WaveOrder(Tier.SHARED, tenants=slugs, cell=SECOND_CELL, pace=Pace(**pace))  # type: ignore[arg-type]


async def moves_of(movers: Movers, tenants: list[TenantContext]) -> Counter[str]:
    async with movers.runtime.catalog_engine.connect() as catalog:
        rows = await catalog.execute(
            text("SELECT t.slug FROM move m JOIN tenant t ON t.id = m.tenant_id WHERE t.id = ANY(:ids)"),
            {"ids": [each.id for each in tenants]},
        )
        return Counter(rows.scalars())


async def cells_of(movers: Movers, tenants: list[TenantContext]) -> list[str]:
    return [(await movers.runtime.contexts.fresh(each.id)).placement.cell for each in tenants]


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_two_hundred_arrive_beside_one_that_is_poisoned(movers: Movers, mover_tenant: Tenantry) -> None:
    good = [await mover_tenant(Tier.SHARED) for _ in range(200)]
    for context in good[:20]:
        await stocked(movers.runtime, context, skus=3, bins=1, on_hand=1)
    bad = await poisoned(movers, mover_tenant)
    order = to_second_cell([*good[:2], bad, *good[2:]])
    async with movers.driving():
        wave = await movers.rested(await movers.runtime.waves.start(order, ACTOR), within_s=3300)
    assert wave.state is WaveState.FINISHED
    assert (wave.counts[Outcome.ARRIVED], wave.counts[Outcome.FAILED]) == (200, 1)
    assert set(await cells_of(movers, good)) == {SECOND_CELL}
    assert await cells_of(movers, [bad]) == [FIRST_CELL]
    members = await movers.runtime.waves.waves.members(wave.id)
    [failed] = [each for each in members if each.outcome is Outcome.FAILED]
    assert (failed.tenant, failed.code, failed.position) == (bad.slug, "move-not-possible", 2)
    assert set((await moves_of(movers, good)).values()) == {1}
    assert wave.finished_at is not None
    print(f"200 tenants in {(wave.finished_at - wave.created_at).total_seconds():.0f} s")  # noqa: T201 - for who runs it


@pytest.mark.slow
async def test_a_poisoned_tenant_keeps_nobody_else_back_and_stops_a_wave_that_allows_none(
    movers: Movers, mover_tenant: Tenantry
) -> None:
    good = [await mover_tenant(Tier.SHARED) for _ in range(2)]
    await stocked(movers.runtime, good[0], skus=3, bins=1, on_hand=1)
    bad = await poisoned(movers, mover_tenant)
    desk = movers.runtime.waves
    async with movers.driving():
        order = to_second_cell([good[0], bad, good[1]], parallel=1, max_failures=1)
        wave = await movers.rested(await desk.start(order, ACTOR))
        assert wave.state is WaveState.STOPPED
        assert wave.counts | {Outcome.ARRIVED: 1, Outcome.FAILED: 1, Outcome.WAITING: 1} == wave.counts
        assert "look why" in (wave.waiting or "")
        # It is known now.
        wave = await movers.rested(await desk.ask(wave.id, WaveWish.RESUME, ACTOR))
        assert wave.state is WaveState.FINISHED
        assert wave.counts | {Outcome.ARRIVED: 2, Outcome.FAILED: 1, Outcome.WAITING: 0} == wave.counts
        assert await cells_of(movers, [*good, bad]) == [SECOND_CELL, SECOND_CELL, FIRST_CELL]
        members = await desk.waves.members(wave.id)
        [failed] = [each for each in members if each.outcome is Outcome.FAILED]
        assert (failed.tenant, failed.code, failed.move) == (bad.slug, "move-not-possible", None)
        assert "product" in (failed.reason or "")
        async with admin_of(movers.runtime, FIRST_CELL) as admin:
            table = f"{quoted(bad.placement.schema_name)}.product"
            await admin.execute(f"ALTER TABLE {table} REPLICA IDENTITY DEFAULT")
        wave = await movers.rested(await desk.ask(wave.id, WaveWish.RETRY, ACTOR))
    assert (wave.state, wave.counts[Outcome.ARRIVED]) == (WaveState.FINISHED, 3)
    assert set((await moves_of(movers, [*good, bad])).values()) == {1}
    for each in await desk.waves.members(wave.id):
        assert each.move is not None
        assert await movers.remains(each.move) == {}


async def test_a_failed_move_shows_in_its_wave_and_a_retry_mends_it(movers: Movers, mover_tenant: Tenantry) -> None:
    context = await mover_tenant(Tier.SCHEMA)
    schema = quoted(context.placement.schema_name)
    async with admin_of(movers.runtime, FIRST_CELL) as admin:
        await admin.execute(f"ALTER TABLE {schema}.product ADD COLUMN poison text")
    async with movers.driving():
        wave = await movers.rested(await movers.runtime.waves.start(to_second_cell([context]), ACTOR))
        [member] = await movers.runtime.waves.waves.members(wave.id)
        assert (wave.state, member.outcome, member.phase) == (WaveState.FINISHED, Outcome.FAILED, "failed")
        assert "works where it was" in (member.reason or "")
        assert (member.next or "").startswith("strata migrate retry")
        async with admin_of(movers.runtime, FIRST_CELL) as admin:
            await admin.execute(f"ALTER TABLE {schema}.product DROP COLUMN poison")
        wave = await movers.rested(await movers.runtime.waves.ask(wave.id, WaveWish.RETRY, ACTOR))
    assert (wave.state, wave.counts[Outcome.ARRIVED]) == (WaveState.FINISHED, 1)


async def test_nothing_begins_while_it_is_paused_nor_after_it_is_cancelled(
    movers: Movers, mover_tenant: Tenantry
) -> None:
    tenants = [await mover_tenant(Tier.SHARED) for _ in range(3)]
    desk = movers.runtime.waves
    wave = await desk.start(to_second_cell(tenants, parallel=1), ACTOR)
    wave = await desk.ask(wave.id, WaveWish.PAUSE, ACTOR)
    there = await mover_tenant(Tier.SHARED, cell=SECOND_CELL)
    canary = await desk.start(to_second_cell([there]), ACTOR)
    async with movers.driving():
        # Begun after it: when it is through, a worker has looked for waves.
        await movers.rested(canary)
        assert (await desk.waves.get(wave.id)).counts[Outcome.WAITING] == 3
        with pytest.raises(WishRefusedError, match="paused"):
            await desk.ask(wave.id, WaveWish.PAUSE, ACTOR)
        await desk.ask(wave.id, WaveWish.RESUME, ACTOR)
        await begun(movers, wave, 1)
        cancelled = await desk.ask(wave.id, WaveWish.CANCEL, ACTOR)
        rested = await movers.rested(cancelled)
    assert rested.state is WaveState.CANCELLED
    assert rested.counts[Outcome.WAITING] == rested.counts[Outcome.FAILED] == 0
    assert rested.counts[Outcome.DROPPED] >= 1
    assert rested.counts[Outcome.ARRIVED] + rested.counts[Outcome.DROPPED] == 3
    assert (await moves_of(movers, tenants)).total() == rested.counts[Outcome.ARRIVED]
    with pytest.raises(WishRefusedError, match="cancelled"):
        await desk.ask(wave.id, WaveWish.RESUME, ACTOR)


async def test_nothing_begins_outside_its_hours(movers: Movers, mover_tenant: Tenantry) -> None:
    context = await mover_tenant(Tier.SHARED)
    now = datetime.now(UTC)
    closed = Window((now + timedelta(hours=2)).time(), (now + timedelta(hours=3)).time(), "UTC")
    wave = await movers.runtime.waves.start(to_second_cell([context], window=closed), ACTOR)
    async with movers.driving(), asyncio.timeout(240):
        while True:
            now_is = await movers.runtime.waves.waves.get(wave.id)
            if now_is.waiting:
                break
            await asyncio.sleep(0.1)
    assert not now_is.window_open
    assert "its hours begin at" in (now_is.waiting or "")
    assert now_is.counts[Outcome.WAITING] == 1
    assert await moves_of(movers, [context]) == Counter()
    await movers.runtime.waves.ask(wave.id, WaveWish.CANCEL, ACTOR)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["wave.begun", "copying.done"])
async def test_another_worker_goes_on_when_one_is_killed(
    movers: Movers, mover_tenant: Tenantry, moving_platform: Platform, point: str
) -> None:
    tenants = [await mover_tenant(Tier.SHARED) for _ in range(2)]
    wave = await movers.runtime.waves.start(to_second_cell(tenants, parallel=2), ACTOR)
    async with move_worker(moving_platform, faults=f"{point}=kill") as process, asyncio.timeout(240):
        await process.wait()
    assert process.returncode == -9
    assert (await moves_of(movers, tenants)).total() >= 1
    async with movers.driving():
        done = await movers.rested(wave)
    assert (done.state, done.counts[Outcome.ARRIVED]) == (WaveState.FINISHED, 2)
    assert await moves_of(movers, tenants) == Counter(each.slug for each in tenants)


@pytest.mark.slow
async def test_a_worker_that_slept_begins_nothing_twice(movers: Movers, mover_tenant: Tenantry) -> None:
    """Its lease has run out and another drives; what it was about to begin is not begun."""
    tenants = [await mover_tenant(Tier.SHARED) for _ in range(2)]
    wave = await movers.runtime.waves.start(to_second_cell(tenants, parallel=1), ACTOR)
    sleeper = wave_driver(movers.runtime)
    assert await sleeper._take(wave.id)
    turn = await sleeper._turn(wave.id)
    assert turn is not None
    async with movers.driving():
        done = await movers.rested(wave)
    with pytest.raises(LostError):
        await sleeper._begin(wave.id, turn)
    assert done.counts[Outcome.ARRIVED] == 2
    assert await moves_of(movers, tenants) == Counter(each.slug for each in tenants)


@pytest.mark.slow
async def test_a_drained_cell_is_empty_in_the_end(movers: Movers, mover_tenant: Tenantry) -> None:
    runtime = movers.runtime
    await runtime.cells.add_shared("cell-drained", FIRST_SERVER, actor=ACTOR)
    tenants = [await mover_tenant(tier, cell="cell-drained") for tier in (Tier.SHARED, Tier.SCHEMA)]
    plan = await runtime.drains.begin(DrainKind.CELL, "cell-drained", ACTOR)
    first = await runtime.waves.drain(plan, Pace(), ACTOR)
    again = await runtime.waves.drain(plan, Pace(), ACTOR)
    assert first is not None
    assert again is not None
    assert (await runtime.waves.waves.get(first.id)).state is WaveState.CANCELLED
    async with movers.driving():
        wave = await movers.rested(again)
    assert wave.counts[Outcome.ARRIVED] == 2
    assert "cell-drained" not in await cells_of(movers, tenants)
    assert (await runtime.drains.due(DrainKind.CELL, "cell-drained")).moves == ()
    assert await runtime.waves.drain(await runtime.drains.due(DrainKind.CELL, "cell-drained"), Pace(), ACTOR) is None


async def test_who_is_there_already_is_passed_over_and_who_is_not_known_is_named(
    movers: Movers, mover_tenant: Tenantry
) -> None:
    there = await mover_tenant(Tier.SHARED, cell=SECOND_CELL)
    with pytest.raises(UnknownTenantsError, match="«no-such»"):
        order = WaveOrder(Tier.SHARED, tenants=(there.slug, "no-such"), cell=SECOND_CELL)
        await movers.runtime.waves.start(order, ACTOR)
    async with movers.driving():
        wave = await movers.rested(await movers.runtime.waves.start(to_second_cell([there]), ACTOR))
    [member] = await movers.runtime.waves.waves.members(wave.id)
    assert (wave.state, member.outcome) == (WaveState.FINISHED, Outcome.SKIPPED)
    assert member.reason == f"It is shared in {SECOND_CELL} already."


@asynccontextmanager
async def beside(movers: Movers, there: TenantContext, count: int) -> AsyncIterator[tuple[str, ...]]:
    """So many in the catalog, placed as that one is; no cell has anything of them."""
    made = {"id": there.id, "count": count, "like": f"{there.slug}-%"}
    slugs = "SELECT slug FROM tenant WHERE slug LIKE :like"
    async with movers.runtime.catalog_engine.begin() as catalog:
        await catalog.execute(text(_BESIDE), made)
        found = tuple((await catalog.execute(text(slugs), made)).scalars())
    try:
        yield found
    finally:
        async with movers.runtime.catalog_engine.begin() as catalog:
            for table, column in (("placement", "tenant_id"), ("tenant", "id")):
                await catalog.execute(
                    text(f"DELETE FROM {table} WHERE {column} IN (SELECT id FROM tenant WHERE slug LIKE :like)"), made
                )


_BESIDE = """
    WITH made AS (
        INSERT INTO tenant
        SELECT (jsonb_populate_record(t, jsonb_build_object('id', gen_random_uuid(), 'slug', t.slug || '-' || i))).*
          FROM tenant t, generate_series(1, cast(:count AS int)) i WHERE t.id = :id
        RETURNING id)
    INSERT INTO placement
    SELECT (jsonb_populate_record(p, jsonb_build_object('tenant_id', made.id))).* FROM made, placement p
     WHERE p.tenant_id = :id
"""


async def test_a_thousand_that_are_there_already_are_passed_over(movers: Movers, mover_tenant: Tenantry) -> None:
    there = await mover_tenant(Tier.SHARED, cell=SECOND_CELL)
    async with beside(movers, there, 1_200) as slugs:
        order = WaveOrder(Tier.SHARED, tenants=slugs, cell=SECOND_CELL)
        async with movers.driving():
            wave = await movers.rested(await movers.runtime.waves.start(order, ACTOR))
        assert (wave.state, wave.counts[Outcome.SKIPPED]) == (WaveState.FINISHED, 1_200)


async def test_two_waves_over_the_same_tenants_move_each_once(movers: Movers, mover_tenant: Tenantry) -> None:
    tenants = [await mover_tenant(Tier.SHARED) for _ in range(2)]
    desk = movers.runtime.waves
    waves = [await desk.start(to_second_cell(tenants, max_failures=1), ACTOR) for _ in range(2)]
    async with movers.driving():
        rested = [await movers.rested(wave) for wave in waves]
    assert [wave.state for wave in rested] == [WaveState.FINISHED, WaveState.FINISHED]
    counts = Counter[str]()
    for wave in rested:
        counts.update(wave.counts)
    assert (counts[Outcome.ARRIVED], counts[Outcome.SKIPPED], counts[Outcome.FAILED]) == (2, 2, 0)
    assert await moves_of(movers, tenants) == Counter(each.slug for each in tenants)


async def test_whoever_is_kept_by_another_move_is_told_at_once(movers: Movers, mover_tenant: Tenantry) -> None:
    """That move waits for somebody's word: the wave does not wait for it."""
    context = await mover_tenant(Tier.SHARED)
    held = await movers.start(context, Tier.SCHEMA, hold=True)
    async with movers.driving():
        wave = await movers.rested(await movers.runtime.waves.start(to_second_cell([context]), ACTOR))
        [member] = await movers.runtime.waves.waves.members(wave.id)
        assert (wave.state, member.outcome, member.code) == (WaveState.FINISHED, Outcome.FAILED, "move-not-possible")
        assert f"strata migrate status {context.slug}" in (member.reason or "")
        await movers.desk.ask(held.id, Wish.CANCEL, ACTOR)
        await movers.until(held, Phase.CANCELLED)


async def test_of_a_wave_that_was_cancelled_nothing_is_retried(movers: Movers, mover_tenant: Tenantry) -> None:
    there = await mover_tenant(Tier.SHARED, cell=SECOND_CELL)
    bad, good = await mover_tenant(Tier.SCHEMA), await mover_tenant(Tier.SHARED)
    async with admin_of(movers.runtime, FIRST_CELL) as admin:
        await admin.execute(f"ALTER TABLE {quoted(bad.placement.schema_name)}.product ADD COLUMN poison text")
    desk = movers.runtime.waves
    async with movers.driving():
        order = to_second_cell([there, bad, good], parallel=1, max_failures=1)
        wave = await movers.rested(await desk.start(order, ACTOR))
    assert wave.state is WaveState.STOPPED
    assert wave.waiting == "1 tenant did not arrive: look why, then resume, retry or cancel the wave."
    [first] = await desk.waves.members(wave.id, limit=1, urgent_first=True)
    assert (first.tenant, first.outcome) == (bad.slug, Outcome.FAILED)
    assert first.move is not None
    await desk.ask(wave.id, WaveWish.CANCEL, ACTOR)
    with pytest.raises(WishRefusedError, match="cancelled cannot be asked to retry"):
        await desk.ask(wave.id, WaveWish.RETRY, ACTOR)
    move = await movers.desk.moves.get(first.move)
    assert (move.phase, move.wish) == (Phase.FAILED, None)


async def test_what_is_under_way_can_be_given_up_after_the_wave_was(movers: Movers, mover_tenant: Tenantry) -> None:
    context = await mover_tenant(Tier.SHARED)
    inside = asyncio.Event()

    async def stay() -> None:
        inside.set()
        await asyncio.Event().wait()

    faults.arm("copying.published", stay)
    desk = movers.runtime.waves
    wave = await desk.start(to_second_cell([context]), ACTOR)
    async with movers.driving():
        await inside.wait()
        assert (await desk.ask(wave.id, WaveWish.CANCEL, ACTOR)).counts[Outcome.MOVING] == 1
        await desk.ask(wave.id, WaveWish.CANCEL_ALL, ACTOR)
        rested = await movers.rested(wave)
        [member] = await desk.waves.members(wave.id)
        assert (rested.state, member.outcome, member.code) == (WaveState.CANCELLED, Outcome.FAILED, "cancelled")
        assert member.move is not None
        await movers.until(await movers.desk.moves.get(member.move), Phase.CANCELLED)
    assert await cells_of(movers, [context]) == [FIRST_CELL]


async def begun(movers: Movers, wave: Wave, at_least: int) -> None:
    async with asyncio.timeout(240):
        while True:
            counts = (await movers.runtime.waves.waves.get(wave.id)).counts
            if counts[Outcome.MOVING] + counts[Outcome.ARRIVED] >= at_least:
                return
            await asyncio.sleep(0.02)
