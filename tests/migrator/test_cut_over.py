"""What the cut-over meets: transactions that stay open, servers that go, answers that are lost."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy import text

from strata.migrator import faults
from strata.migrator.phases import Phase
from strata.tenancy.model import TenantStatus, Tier
from tests.builders.inventory import stocked
from tests.builders.moving import Movers
from tests.builders.platform import ACTOR, FIRST_CELL, SECOND_CELL, Tenantry, admin_of, second_process
from tests.builders.site import Site
from tests.builders.traffic import Ledger, assert_kept, traffic


async def _answered(ledger: Ledger, more: int) -> None:
    """Return when so many more writes have been acknowledged."""
    wanted = len(ledger.entries) + more
    async with asyncio.timeout(120):
        while len(ledger.entries) < wanted:  # noqa: ASYNC110 - by others
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("open_for_s", [2.0, pytest.param(60.0, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
async def test_a_transaction_that_stays_open_delays_the_cut_over_and_no_other_request(
    movers: Movers, mover_tenant: Tenantry, moving_site: Site, open_for_s: float
) -> None:
    context = await mover_tenant(Tier.SHARED)
    async with traffic(moving_site, context, writers=2) as ledger:
        async with movers.runtime.tenants.transaction(context) as session:
            begun = time.monotonic()
            await session.execute(text("SELECT 1"))
            move = await movers.start(context, Tier.SCHEMA)
            async with movers.working(move):
                await movers.until(move, Phase.READY)
                # Others come in and are answered, again and again, for as long as this one stays: the fence is open.
                now = await movers.desk.moves.get(move.id)
                while time.monotonic() - begun < open_for_s or "waiting" not in now.progress:
                    await _answered(ledger, 5)
                    now = await movers.desk.moves.get(move.id)
                    assert now.phase is Phase.READY
                assert "has been open for" in now.progress["waiting"]
                await session.execute(text("SELECT 1"))
        async with movers.keeping():
            await movers.until(move, Phase.COMPLETED)
    await assert_kept(movers.runtime, context, ledger)


async def test_a_tenant_that_is_never_without_a_transaction_moves_all_the_same(
    movers: Movers, mover_tenant: Tenantry
) -> None:
    """As on a server with more to do than it can: each of them is older than a cut-over likes, and none is long."""
    context = await mover_tenant(Tier.SHARED)
    stop = asyncio.Event()

    async def work() -> None:
        while not stop.is_set():
            async with movers.runtime.tenants.transaction(context) as session:
                await session.execute(text("SELECT pg_sleep(0.2)"))

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(work())
            await asyncio.sleep(0.05 if number < 3 else 0)
        move = await movers.start(context, Tier.SCHEMA)
        async with movers.working(move, holder_patience_s=1):
            await movers.until(move, Phase.COMPLETED)
        stop.set()


async def test_one_that_begins_at_the_last_moment_calls_the_cut_over_off(
    movers: Movers, mover_tenant: Tenantry
) -> None:
    context = await mover_tenant(Tier.SHARED)
    inside, let_go = asyncio.Event(), asyncio.Event()

    async def stay_inside() -> None:
        async with movers.runtime.tenants.transaction(context) as session:
            await session.execute(text("SELECT 1"))
            inside.set()
            await let_go.wait()

    tasks: list[asyncio.Task[None]] = []

    async def come_in() -> None:
        tasks.append(asyncio.create_task(stay_inside()))
        await inside.wait()

    faults.arm("cutting_over.begin", come_in)
    move = await movers.start(context, Tier.SCHEMA)
    async with movers.working(move):
        await movers.told(move, "called off")
        async with movers.runtime.tenants.transaction(context) as session:
            await session.execute(text("SELECT 1"))
        let_go.set()
        await asyncio.gather(*tasks)
        await movers.until(move, Phase.COMPLETED)


@pytest.mark.slow
async def test_the_applications_connections_to_the_new_home_are_open_before_the_fence_shuts(
    movers: Movers, mover_tenant: Tenantry
) -> None:
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, on_hand=1)
    seen: list[int] = []

    async def look() -> None:
        home = movers.runtime.engines.opened((await movers.desk.moves.get(move.id)).target.cell)
        seen.append(0 if home is None else home.pool.idle)

    faults.arm("cutting_over.begin", look)
    move = await movers.start(context, Tier.DEDICATED)
    async with movers.working(move, make_ready_s=300):
        await movers.until(move, Phase.COMPLETED)
    assert seen[-1] == movers.runtime.settings.pool.dedicated_size


@pytest.mark.parametrize("pool", [pytest.param("open", marks=pytest.mark.slow), "never opened"])
async def test_who_comes_late_to_a_dedicated_database_that_has_gone_finds_the_new_home(
    movers: Movers, mover_tenant: Tenantry, pool: str
) -> None:
    """With a context of before the flip: a request that was held up, or a process that Redis did not reach."""
    context = await mover_tenant(Tier.DEDICATED)
    async with second_process(movers.runtime) as other:
        if pool == "open":
            async with other.tenants.transaction(context) as session:
                await session.execute(text("SELECT 1"))
        await movers.move(context, Tier.SHARED, cell=FIRST_CELL)
        async with other.tenants.transaction(context) as session:
            where = await session.scalar(text("SELECT current_database()"))
    cell = await movers.runtime.registry.cell((await movers.runtime.contexts.fresh(context.id)).placement.cell)
    assert where == cell.url.database


async def test_a_target_that_goes_within_the_window_lets_the_tenant_in_where_it_was(
    movers: Movers, mover_tenant: Tenantry
) -> None:
    context = await mover_tenant(Tier.SHARED)
    goods = await stocked(movers.runtime, context, on_hand=1)

    async def end_sessions() -> None:
        async with admin_of(movers.runtime, SECOND_CELL) as admin:
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )

    faults.arm("cutting_over.drained", end_sessions)
    move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL)
    async with movers.working(move):
        await movers.told(move, "called off")
        await movers.until(move, Phase.COMPLETED)
    now = await movers.runtime.contexts.fresh(context.id)
    async with movers.runtime.tenants.reading(now) as session:
        assert await session.scalar(text("SELECT count(*) FROM product")) == len(goods.skus)


async def test_a_flip_whose_outcome_is_not_heard_is_looked_up(movers: Movers, mover_tenant: Tenantry) -> None:
    context = await mover_tenant(Tier.SHARED)

    async def lose_the_catalog() -> None:
        async with movers.runtime.catalog_engine.connect() as connection:
            await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )

    faults.arm("cutting_over.done", lose_the_catalog)
    move = await movers.move(context, Tier.SCHEMA)
    events = await movers.desk.moves.events(move.id)
    assert [event.what for event in events].count("flipped") == 1


async def test_a_way_back_that_keeps_too_much_of_the_log_ends_the_retention(
    movers: Movers, mover_tenant: Tenantry
) -> None:
    context = await mover_tenant(Tier.SHARED)
    move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL, retention_s=3600)
    async with movers.working(move, wal_cap_bytes=64 * 1024 * 1024):
        await movers.until(move, Phase.RETAINING)
        # A writing transaction that stays open keeps the slot where it is; the log goes on.
        async with (
            admin_of(movers.runtime, SECOND_CELL) as admin,
            admin.transaction(),
            admin_of(movers.runtime, SECOND_CELL) as other,
        ):
            await admin.execute("CREATE TABLE public.kept_open ()")
            for _ in range(5):
                await other.execute("SELECT pg_switch_wal()")
                await other.execute("SELECT pg_logical_emit_message(false, 'x', 'y')")
            await movers.until(move, Phase.COMPLETED)
            await admin.execute("DROP TABLE public.kept_open")
    events = await movers.desk.moves.events(move.id)
    [ended] = [event for event in events if event.what == "retention ended"]
    assert ended.detail["code"] == "way-back-lost"


async def test_the_old_home_is_kept_until_the_new_ones_standbys_have_the_tenant(
    movers: Movers, mover_tenant: Tenantry
) -> None:
    """Promoted without it, and with the old home gone, such a standby would leave the tenant nowhere."""
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, skus=1)
    async with admin_of(movers.runtime, SECOND_CELL) as admin:
        await admin.execute("SELECT pg_create_physical_replication_slot('a_standby_that_is_away', true)")
        try:
            move = await movers.start(context, Tier.SHARED, cell=SECOND_CELL)
            async with movers.keeping():
                waiting = await movers.waiting(move, "a_standby_that_is_away")
                assert waiting.phase is Phase.COMPLETING
                assert set(await movers.homes_of(context)) == {FIRST_CELL, SECOND_CELL}
                await admin.execute("SELECT pg_drop_replication_slot('a_standby_that_is_away')")
                await movers.until(move, Phase.COMPLETED)
        finally:
            await admin.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name ~ '^a_standby'"
            )
    assert await movers.homes_of(context) == {SECOND_CELL: ["shared"]}


async def test_a_read_only_tenant_moves_too(movers: Movers, mover_tenant: Tenantry) -> None:
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, on_hand=1)
    await movers.runtime.directory.set_status(context.slug, TenantStatus.READ_ONLY, "an audit", ACTOR)
    moved = await movers.move(context, Tier.SCHEMA)
    now = await movers.runtime.contexts.fresh(context.id)
    assert (now.status, now.placement.tier) == (TenantStatus.READ_ONLY, moved.target.tier)
