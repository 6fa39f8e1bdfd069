"""A tenant that is being moved: who comes too early waits outside, who comes too late goes to the new home, and nobody
writes behind a fence that has closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest
from sqlalchemy import text, update

from strata.platform.settings import FenceSettings, PoolSettings
from strata.runtime import Runtime
from strata.tenancy.catalog.tables import PlacementRow
from strata.tenancy.cell.door import Isolation, entry_message
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import (
    MoveInProgressError,
    TenantReadOnlyError,
    TenantSuspendedError,
)
from strata.tenancy.model import Placement, TenantStatus, Tier
from tests.builders.intruder import app_login
from tests.builders.platform import ACTOR, FIRST_CELL, SECOND_CELL, Tenantry, admin_of, second_process
from tests.builders.pools import pool_of, settled

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

ADD = text("INSERT INTO product (sku, name) VALUES (:sku, 'x')")
STALE, FENCED, SERIALIZATION = "SM001", "SM002", "40001"


@pytest.fixture(scope="module")
async def small(runtime: Runtime) -> AsyncIterator[Runtime]:
    """Two connections, and a second to wait for one or for a fence."""
    pool = PoolSettings(shared_size=2, shared_overflow=0, acquire_timeout_s=1.0)
    async with second_process(runtime, pool=pool, fence=FenceSettings(wait_s=1.0)) as made:
        yield made


async def write(
    runtime: Runtime, tenant: TenantContext, sku: str, isolation: Isolation = Isolation.READ_COMMITTED
) -> str:
    """Where it went."""
    async with runtime.tenants.transaction(tenant, isolation=isolation) as session:
        await session.execute(ADD, {"sku": sku})
        where: str = await session.scalar(text("SELECT current_database()"))
        return where


async def set_fence(runtime: Runtime, tenant: TenantContext, state: str, *, epoch: int | None = None) -> None:
    async with admin_of(runtime, tenant.placement.cell) as admin:
        await admin.execute(
            "UPDATE strata.fence SET state = $2, epoch = coalesce($3, epoch) WHERE tenant_id = $1",
            tenant.id,
            state,
            epoch,
        )


async def raise_epoch(runtime: Runtime, tenant: TenantContext) -> None:
    """As a cut-over within the cell leaves it: fence and catalog one further, and nobody told."""
    epoch = tenant.placement.epoch + 1
    await set_fence(runtime, tenant, "active", epoch=epoch)
    async with runtime.catalog_engine.begin() as catalog:
        await catalog.execute(update(PlacementRow).where(PlacementRow.tenant_id == tenant.id).values(epoch=epoch))


async def flip_to_second_cell(runtime: Runtime, tenant: TenantContext) -> None:
    """The end of a move of a shared tenant: new home open, old one closed, catalog last."""
    epoch = tenant.placement.epoch + 1
    async with admin_of(runtime, SECOND_CELL) as admin:
        await admin.execute("INSERT INTO strata.fence VALUES ($1, $2, 'active', 'shared')", tenant.id, epoch)
    await set_fence(runtime, tenant, "moved")
    async with runtime.catalog_engine.begin() as catalog:
        await catalog.execute(
            update(PlacementRow)
            .where(PlacementRow.tenant_id == tenant.id)
            .values(epoch=epoch, cell_id=await _cell_id(catalog, SECOND_CELL))
        )


async def _cell_id(catalog: AsyncConnection, name: str) -> object:
    return (await catalog.execute(text("SELECT id FROM cell WHERE name = :name"), {"name": name})).scalar_one()


@asynccontextmanager
async def lock_held(runtime: Runtime, tenant: TenantContext) -> AsyncIterator[asyncpg.Connection]:
    """The exclusive lock that a cut-over takes; given back at the end."""
    async with admin_of(runtime, tenant.placement.cell) as admin, admin.transaction():
        await admin.execute("SELECT pg_advisory_xact_lock(strata.lock_key($1))", tenant.id)
        yield admin


@pytest.mark.parametrize("isolation", Isolation)
@pytest.mark.parametrize("tier", Tier)
async def test_an_old_epoch_is_resolved_and_entered_anew(
    runtime: Runtime, tenant_on: Tenantry, tier: Tier, isolation: Isolation
) -> None:
    tenant = await tenant_on(tier)
    await raise_epoch(runtime, tenant)
    await write(runtime, tenant, "a", isolation)
    assert (await runtime.contexts.fresh(tenant.id)).placement.epoch == 2


async def test_an_old_placement_leads_to_the_new_home(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    old = await write(runtime, tenant, "a")
    await flip_to_second_cell(runtime, tenant)
    new = await write(runtime, tenant, "b")
    assert old.endswith("cell_1")
    assert new.endswith("cell_2")


@pytest.mark.parametrize("isolation", Isolation)
async def test_a_fenced_tenant_waits_and_goes_on(small: Runtime, tenant_on: Tenantry, isolation: Isolation) -> None:
    tenant = await tenant_on(Tier.SHARED)
    async with lock_held(small, tenant):
        waiting = asyncio.create_task(write(small, tenant, "a", isolation))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    assert (await waiting).endswith("cell_1")


async def test_a_fenced_tenant_goes_on_in_its_new_home(small: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    await set_fence(small, tenant, "moving")
    waiting = [asyncio.create_task(write(small, tenant, f"s{n}")) for n in range(10)]
    await asyncio.sleep(0.1)
    assert not any(each.done() for each in waiting)
    await flip_to_second_cell(small, tenant)
    assert all(where.endswith("cell_2") for where in await asyncio.gather(*waiting))


async def test_waiting_is_bounded_and_says_when_to_come_back(small: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SCHEMA)
    await set_fence(small, tenant, "moving")
    outcomes = await asyncio.gather(*(write(small, tenant, f"s{n}") for n in range(5)), return_exceptions=True)
    for error in outcomes:
        assert isinstance(error, MoveInProgressError)
        assert error.status == 503
        assert error.headers["Retry-After"] == "1"
    pool = await settled(small, tenant.placement.cell)
    assert (pool.checked_out, pool.in_transaction) == (0, ())
    await set_fence(small, tenant, "active")
    await write(small, tenant, "afterwards")


def probers_of(tenant: TenantContext) -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == f"fence-{tenant.id}"]


async def test_waiters_hold_no_connection(small: Runtime, tenant_on: Tenantry) -> None:
    """Fifty wait for one tenant's fence, with two connections; the neighbours do not notice."""
    tenant, neighbour = await tenant_on(Tier.SHARED), await tenant_on(Tier.SCHEMA)
    async with lock_held(small, tenant):
        waiting = [asyncio.create_task(write(small, tenant, f"w{n}")) for n in range(50)]
        async with asyncio.timeout(10):
            while len(probers_of(tenant)) != 1 or (await pool_of(small, FIRST_CELL)).checked_out > 1:  # noqa: ASYNC110 - what the pool has out is asked of the server
                await asyncio.sleep(0.01)
        await asyncio.gather(*(write(small, neighbour, f"n{n}") for n in range(30)))
        assert not any(each.done() for each in waiting)
    await asyncio.gather(*waiting)
    async with small.tenants.reading(tenant) as session:
        assert await session.scalar(text("SELECT count(*) FROM product")) == 50


async def test_a_waiter_that_is_cancelled_leaves_the_others_waiting(small: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    async with lock_held(small, tenant):
        waiting = [asyncio.create_task(write(small, tenant, f"w{n}")) for n in range(6)]
        await asyncio.sleep(0.1)
        for each in waiting[:3]:
            each.cancel()
        await asyncio.sleep(0.05)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in outcomes] == [asyncio.CancelledError] * 3 + [str] * 3


async def test_a_prober_that_nobody_waits_for_any_more_fails_quietly(small: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    await set_fence(small, tenant, "moving")
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: unhandled.append(report))
    try:
        waiting = asyncio.create_task(write(small, tenant, "a"))
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.sleep(1.2)
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
    assert unhandled == []
    await set_fence(small, tenant, "active")


async def test_who_was_suspended_meanwhile_does_not_get_in(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    await runtime.directory.set_status(tenant.slug, TenantStatus.SUSPENDED, "unpaid", ACTOR)
    await raise_epoch(runtime, tenant)
    with pytest.raises(TenantSuspendedError):
        await write(runtime, tenant, "a")


async def test_who_became_read_only_meanwhile_does_not_write(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    await runtime.directory.set_status(tenant.slug, TenantStatus.READ_ONLY, "unpaid", ACTOR)
    await raise_epoch(runtime, tenant)
    with pytest.raises(TenantReadOnlyError) as refusal:
        await write(runtime, tenant, "a")
    assert refusal.value.reason == "unpaid"


async def test_a_read_only_tenant_reads(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SCHEMA)
    await write(runtime, tenant, "a")
    await runtime.directory.set_status(tenant.slug, TenantStatus.READ_ONLY, "unpaid", ACTOR)
    context = await runtime.contexts.get_by_slug(tenant.slug)
    async with runtime.tenants.transaction(context) as session:
        assert await session.scalar(text("SELECT count(*) FROM product")) == 1
    with pytest.raises(TenantReadOnlyError):
        await write(runtime, context, "b")


# Behind the fence: what `strata.enter` itself lets through


async def message(runtime: Runtime, tenant: TenantContext, epoch: int, isolation: Isolation) -> str:
    cell = await runtime.registry.cell(tenant.placement.cell)
    placement = Placement(cell.name, tenant.placement.tier, tenant.placement.schema_name, epoch)
    return entry_message(cell.secret, tenant.id, placement, isolation, read_only=False)


async def _enter_on_an_old_snapshot(runtime: Runtime, tenant: TenantContext, isolation: Isolation) -> str | None:
    """SQLSTATE of an entry whose snapshot was taken before the fence changed; as between `enter`'s snapshot and its lock."""
    entry = await message(runtime, tenant, tenant.placement.epoch, isolation)
    begin, _, rest = entry.partition(";")
    async with app_login(runtime, tenant.placement.cell) as connection:
        await connection.execute(begin)
        await connection.fetch("SELECT 1 FROM pg_class LIMIT 1")
        await raise_epoch(runtime, tenant)
        try:
            await connection.execute(rest)
        except asyncpg.PostgresError as error:
            return error.sqlstate
        await connection.execute("INSERT INTO product (sku, name) VALUES ('late', 'x')")
        await connection.execute("COMMIT")
        return None


@pytest.mark.parametrize(
    ("isolation", "refusal"),
    [
        (Isolation.READ_COMMITTED, STALE),
        (Isolation.REPEATABLE_READ, SERIALIZATION),
        (Isolation.SERIALIZABLE, SERIALIZATION),
    ],
)
async def test_an_old_snapshot_does_not_pass(
    runtime: Runtime, tenant_on: Tenantry, isolation: Isolation, refusal: str
) -> None:
    assert await _enter_on_an_old_snapshot(runtime, await tenant_on(Tier.SHARED), isolation) == refusal


async def test_without_the_row_lock_it_would(runtime: Runtime, tenant_on: Tenantry) -> None:
    """The control: take FOR SHARE out of `enter_tenant`, and a write is committed behind the fence."""
    tenant = await tenant_on(Tier.SHARED, cell=SECOND_CELL)
    async with admin_of(runtime, SECOND_CELL) as admin:
        original: str = await admin.fetchval(
            "SELECT pg_get_functiondef('strata.enter_tenant(uuid,bigint,bytea)'::regprocedure)"
        )
        assert " FOR SHARE OF f;" in original
        await admin.execute(original.replace(" FOR SHARE OF f;", ";"))
        try:
            assert await _enter_on_an_old_snapshot(runtime, tenant, Isolation.REPEATABLE_READ) is None
        finally:
            await admin.execute(original)


@pytest.mark.parametrize("isolation", Isolation)
async def test_no_write_is_committed_behind_a_fence(
    runtime: Runtime, tenant_on: Tenantry, isolation: Isolation
) -> None:
    """Writers tag rows with the epoch they entered at; what the fence's holder counts for an epoch is all there will
    ever be."""
    tenant = await tenant_on(Tier.SHARED)
    flips, counted = 25, dict[int, int]()
    current, stop = [tenant.placement.epoch], asyncio.Event()

    async def writer(number: int) -> None:
        written = 0
        async with app_login(runtime, tenant.placement.cell) as connection:
            while not stop.is_set():
                epoch = current[0]
                try:
                    await connection.execute(await message(runtime, tenant, epoch, isolation))
                    await connection.execute(
                        f"INSERT INTO product (sku, name) VALUES ('w{number}-{written}', '{epoch}')"
                    )
                    await connection.execute("COMMIT")
                    written += 1
                except asyncpg.PostgresError as error:
                    assert error.sqlstate in {STALE, FENCED, SERIALIZATION}
                    await connection.execute("ROLLBACK")
                    await asyncio.sleep(0)

    async def flipper() -> None:
        async with admin_of(runtime, tenant.placement.cell) as admin:
            # On a busy machine writers get a turn less often: it goes on until there is something to see.
            while len(counted) < flips or sum(counted.values()) <= flips / 4:
                epoch = current[0]
                async with admin.transaction():
                    await admin.execute("SELECT pg_advisory_xact_lock(strata.lock_key($1))", tenant.id)
                    counted[epoch] = await admin.fetchval(
                        "SELECT count(*) FROM shared.product WHERE tenant_id = $1 AND name = $2", tenant.id, str(epoch)
                    )
                    await admin.execute("UPDATE strata.fence SET epoch = epoch + 1 WHERE tenant_id = $1", tenant.id)
                current[0] = epoch + 1
                await asyncio.sleep(0.01)
        stop.set()

    await asyncio.gather(flipper(), *(writer(number) for number in range(6)))
    async with admin_of(runtime, tenant.placement.cell) as admin:
        rows = await admin.fetch(
            "SELECT name::int AS epoch, count(*) AS n FROM shared.product WHERE tenant_id = $1 GROUP BY 1", tenant.id
        )
    final = {row["epoch"]: row["n"] for row in rows}
    late = {epoch: (n, counted[epoch]) for epoch, n in final.items() if epoch in counted and n != counted[epoch]}
    assert late == {}
