"""Connections that die, servers that restart, pools that are empty: what the next transactions notice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from strata.platform.database import addresses
from strata.platform.embedded import EmbeddedPostgres
from strata.platform.errors import UnavailableError
from strata.platform.settings import PoolSettings
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import CapabilityRefusedError, CellClosedError, CellUnavailableError, CommitUnknownError
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.servers import add_server
from tests.builders.intruder import driver_of
from tests.builders.platform import (
    ACTOR,
    FIRST_SERVER,
    SECOND_CELL,
    Tenantry,
    admin_of,
    new_platform,
    second_process,
    standing,
)
from tests.builders.pools import kill_back_ends, settled
from tests.servers import PostgresServer, RedisServer

ADD = text("INSERT INTO product (sku, name) VALUES (:sku, 'x')")
COUNT = text("SELECT count(*) FROM product")


async def write(runtime: Runtime, tenant: TenantContext, sku: str) -> None:
    async with runtime.tenants.transaction(tenant) as session:
        await session.execute(ADD, {"sku": sku})


async def count(runtime: Runtime, tenant: TenantContext) -> int:
    async with runtime.tenants.reading(tenant) as session:
        found: int = await session.scalar(COUNT)
        return found


async def test_dead_pooled_connections_are_replaced_unseen(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    await asyncio.gather(*(write(runtime, tenant, f"a{n}") for n in range(15)))
    assert await kill_back_ends(runtime, tenant.placement.cell) >= 5
    await asyncio.gather(*(write(runtime, tenant, f"b{n}") for n in range(30)))
    assert await count(runtime, tenant) == 45


async def test_a_connection_that_dies_within_the_block_has_a_name(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SCHEMA)
    with pytest.raises(CellUnavailableError):
        async with runtime.tenants.transaction(tenant) as session:
            await session.execute(ADD, {"sku": "a"})
            pid = await session.scalar(text("SELECT pg_backend_pid()"))
            async with admin_of(runtime, tenant.placement.cell) as admin:
                await admin.execute("SELECT pg_terminate_backend($1, 5000)", pid)
            await session.execute(ADD, {"sku": "b"})
    assert await count(runtime, tenant) == 0
    pool = await settled(runtime, tenant.placement.cell)
    assert (pool.checked_out, pool.in_transaction) == (0, ())


async def test_a_connection_that_dies_before_the_commit_leaves_it_unknown(
    runtime: Runtime, tenant_on: Tenantry
) -> None:
    tenant = await tenant_on(Tier.SHARED)
    with pytest.raises(CommitUnknownError):
        async with runtime.tenants.transaction(tenant) as session:
            await session.execute(ADD, {"sku": "a"})
            pid = await session.scalar(text("SELECT pg_backend_pid()"))
            async with admin_of(runtime, tenant.placement.cell) as admin:
                await admin.execute("SELECT pg_terminate_backend($1, 5000)", pid)
    assert await count(runtime, tenant) == 0


async def test_an_empty_pool_is_a_503_and_recovers(runtime: Runtime, tenant_on: Tenantry) -> None:
    pool = PoolSettings(shared_size=1, shared_overflow=0, acquire_timeout_s=0.3)
    tenant = await tenant_on(Tier.SHARED)
    async with second_process(runtime, pool=pool) as other:
        async with other.tenants.transaction(tenant) as session:
            await session.execute(COUNT)
            with pytest.raises(UnavailableError) as refusal:
                await write(other, tenant, "a")
            assert refusal.value.status == 503
            assert not isinstance(refusal.value, CellUnavailableError)
        await write(other, tenant, "a")
        assert (await settled(other, tenant.placement.cell)).checked_out == 0


async def test_the_last_guard_throws_away_what_stands_in_a_transaction(runtime: Runtime, tenant_on: Tenantry) -> None:
    """Suppose everything else had failed: the pool itself takes no connection back that has not ended its transaction."""
    one = PoolSettings(shared_size=1, shared_overflow=0)
    tenant = await tenant_on(Tier.SHARED)
    async with second_process(runtime, pool=one) as other:
        pool = (await other.engines.open(tenant.placement.cell)).pool
        pooled = await pool.acquire(tenant.id, tenant.placement.schema_name)
        pid = await pooled.driver.fetchval("SELECT pg_backend_pid()")
        await pooled.driver.execute("BEGIN")
        pool.release(pooled, tenant.id)
        async with other.tenants.transaction(tenant) as session:
            assert await (await driver_of(session)).fetchval("SELECT pg_backend_pid()") != pid


async def test_an_unapproved_timeline_keeps_everybody_out(runtime: Runtime, tenant_on: Tenantry) -> None:
    """As after the promotion of a standby: closed by name, also for who has a connection already, until approved."""
    tenant = await tenant_on(Tier.SCHEMA, cell=SECOND_CELL)
    await write(runtime, tenant, "a")
    async with admin_of(runtime, SECOND_CELL) as admin:
        approved = await admin.fetchval("SELECT timeline FROM strata.cell")
        await admin.execute("UPDATE strata.cell SET timeline = '0000FFFF'")
        try:
            with pytest.raises(CellClosedError) as refusal:
                await write(runtime, tenant, "b")
        finally:
            await admin.execute("UPDATE strata.cell SET timeline = $1", approved)
    assert refusal.value.status == 503
    await write(runtime, tenant, "b")


async def test_a_changed_cell_secret_is_refused_and_read_again(runtime: Runtime, tenant_on: Tenantry) -> None:
    """One request fails by name; the pool is made anew, with the secret that the catalog has by then."""
    tenant = await tenant_on(Tier.SHARED, cell=SECOND_CELL)
    await write(runtime, tenant, "a")
    async with admin_of(runtime, SECOND_CELL) as admin:
        row = await admin.fetchrow("SELECT ipad, opad FROM strata.secret")
        assert row is not None
        await admin.execute("UPDATE strata.secret SET ipad = set_byte(ipad, 0, 1)")
        try:
            with pytest.raises(CapabilityRefusedError):
                await write(runtime, tenant, "b")
        finally:
            await admin.execute("UPDATE strata.secret SET ipad = $1", row["ipad"])
    await write(runtime, tenant, "b")


async def test_a_renewed_password_is_taken_up_by_running_processes(own: Runtime, restartable: EmbeddedPostgres) -> None:
    """Also the way back when a tenant's SQL has changed the application's password, which PostgreSQL lets every role do."""
    tenant = await Tenantry(own)(Tier.SHARED)
    await write(own, tenant, "a")
    role = f"{own.settings.role_prefix}_app"
    async with admin_of(own, tenant.placement.cell) as admin:
        await admin.execute(f"ALTER ROLE {role} PASSWORD 'stolen'")
    await kill_back_ends(own, tenant.placement.cell)
    with pytest.raises(CellUnavailableError):
        await write(own, tenant, "b")

    address = addresses.parse(restartable.dsn())
    await add_server(
        own.registry, FIRST_SERVER, address, region="north", role_prefix=own.settings.role_prefix, actor=ACTOR
    )

    await write(own, tenant, "b")
    assert await count(own, tenant) == 2


@pytest.fixture
def restartable(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path / "restartable", durable=False) as server:
        yield server


@pytest.fixture
async def own(
    restartable: EmbeddedPostgres, second_postgres_server: PostgresServer, redis_server: RedisServer, tmp_path: Path
) -> AsyncIterator[Runtime]:
    first = PostgresServer("restartable", restartable.dsn(), "embedded")
    async with standing(new_platform(first, second_postgres_server, redis_server, tmp_path)) as made:
        yield made


async def test_after_a_restart_of_the_server_no_transaction_fails(own: Runtime, restartable: EmbeddedPostgres) -> None:
    tenants = [await Tenantry(own)(tier) for tier in (Tier.SHARED, Tier.SCHEMA)]
    for tenant in tenants:
        await asyncio.gather(*(write(own, tenant, f"a{n}") for n in range(8)))

    await asyncio.to_thread(restartable.stop)
    with pytest.raises(CellUnavailableError):
        await write(own, tenants[0], "while it was down")
    await asyncio.to_thread(restartable.start)

    for tenant in tenants:
        await asyncio.gather(*(write(own, tenant, f"b{n}") for n in range(20)))
        assert await count(own, tenant) == 28
