"""200 requests at once over 50 tenants on three tiers, with errors and cancellations: straight to PostgreSQL, and through
PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text

from strata.platform.database import addresses
from strata.platform.settings import Pooler, PoolSettings
from strata.runtime import Runtime
from strata.tenancy.catalog.tables import DrainKind
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import CellUnavailableError
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.servers import add_server
from tests.builders.hammer import hammer, hammer_over_http, many_tenants, misplaced_cache_entries
from tests.builders.pgbouncer import free_port, pgbouncer
from tests.builders.platform import (
    ACTOR,
    FIRST_CELL,
    FIRST_SERVER,
    REGIONS,
    SECOND_SERVER,
    Platform,
    Tenantry,
    admin_of,
    new_platform,
    second_process,
    standing,
)
from tests.builders.pools import settled
from tests.builders.site import Site, serving
from tests.servers import PostgresServer, RedisServer

REQUESTS = 200
SERVER_CONNECTIONS = 6
POOL = PoolSettings(shared_size=8, shared_overflow=4, acquire_timeout_s=20.0)
BEHIND_A_POOLER = PoolSettings(shared_size=60, shared_overflow=0, acquire_timeout_s=20.0, pooler=Pooler.TRANSACTION)


async def survives(runtime: Runtime, tenants: list[TenantContext], *, seed: int) -> None:
    tally = await hammer(runtime, tenants, requests=REQUESTS, cancelled=0.25, seed=seed)
    assert tally.foreign == []
    assert tally.surprises == []
    assert tally.outcomes["done"] > REQUESTS / 4
    assert tally.outcomes["failed"] > 0
    assert tally.outcomes["cancelled"] > 0
    for cell in {tenant.placement.cell for tenant in tenants}:
        pool = await settled(runtime, cell)
        assert (pool.checked_out, pool.in_transaction) == (0, ()), cell
    assert await misplaced_cache_entries(runtime, tenants) == []
    await every_row_is_at_home(runtime, tenants)


async def every_row_is_at_home(runtime: Runtime, tenants: list[TenantContext]) -> None:
    """Each row's name says whose it is: the administrator compares."""
    for tenant in tenants:
        async with admin_of(runtime, tenant.placement.cell) as admin:
            wrong = await admin.fetchval(
                f"SELECT count(*) FROM {tenant.placement.schema_name}.product WHERE tenant_id = $1 AND name <> $1::text",
                tenant.id,
            )
            assert wrong == 0, tenant.slug


@pytest.fixture(scope="module")
async def tenants(tenant_on: Tenantry) -> list[TenantContext]:
    return await many_tenants(tenant_on)


@pytest.mark.parametrize("seed", [pytest.param(each, marks=pytest.mark.slow) for each in (1, 2, 7, 8, 9, 10)])
async def test_straight(runtime: Runtime, tenants: list[TenantContext], seed: int) -> None:
    async with second_process(runtime, pool=POOL) as other:
        await survives(other, tenants, seed=seed)


@pytest.mark.slow
async def test_over_http(runtime: Runtime, tenants: list[TenantContext]) -> None:
    async with second_process(runtime, pool=POOL) as other, serving(other) as site:
        await survives_over_http(site, tenants, seed=5)


async def survives_over_http(site: Site, tenants: list[TenantContext], *, seed: int) -> None:
    tally = await hammer_over_http(site, tenants, requests=REQUESTS, seed=seed)
    assert tally.foreign == []
    assert tally.surprises == []
    for outcome in ("200", "201", "403", "422", "cancelled"):
        assert tally.outcomes[outcome] > 0, outcome
    for cell in {tenant.placement.cell for tenant in tenants}:
        pool = await settled(site.runtime, cell)
        assert (pool.checked_out, pool.in_transaction) == (0, ()), cell
    assert await misplaced_cache_entries(site.runtime, tenants) == []
    await every_row_is_at_home(site.runtime, tenants)


# Through PgBouncer


@pytest.fixture(scope="module")
def elsewhere(
    postgres_server: PostgresServer,
    second_postgres_server: PostgresServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Platform:
    directory = tmp_path_factory.mktemp("pooled-platform")
    return new_platform(postgres_server, second_postgres_server, redis_server, directory)


@pytest.fixture(scope="module")
async def pooled(elsewhere: Platform, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    """A process whose way to every cell leads through PgBouncer with few connections."""
    directory: Path = tmp_path_factory.mktemp("pgbouncer")
    port = free_port()
    async with standing(elsewhere) as own:
        await own.drains.begin(DrainKind.SERVER, SECOND_SERVER, ACTOR)
        await add_server(
            own.registry,
            FIRST_SERVER,
            addresses.parse(elsewhere.first.admin_dsn),
            region=REGIONS[FIRST_SERVER],
            role_prefix=elsewhere.prefix,
            actor=ACTOR,
            app_address=f"127.0.0.1:{port}",
        )
        url = (await own.registry.cell(FIRST_CELL)).url
        users = {str(url.username): str(url.password)}
        with pgbouncer(elsewhere.first, users, directory, pool_size=SERVER_CONNECTIONS, port=port):
            async with second_process(own, pool=BEHIND_A_POOLER) as made:
                yield made


@pytest.fixture(scope="module")
async def pooled_tenants(pooled: Runtime) -> list[TenantContext]:
    return await many_tenants(Tenantry(pooled))


@pytest.mark.pgbouncer
@pytest.mark.parametrize("seed", [pytest.param(each, marks=pytest.mark.slow) for each in (3, 4, 11, 12, 13, 14)])
async def test_through_pgbouncer(pooled: Runtime, pooled_tenants: list[TenantContext], seed: int) -> None:
    await survives(pooled, pooled_tenants, seed=seed)
    await nothing_is_left_on_any_server_connection(pooled)


@pytest.mark.pgbouncer
async def test_over_http_and_through_pgbouncer(pooled: Runtime, pooled_tenants: list[TenantContext]) -> None:
    async with serving(pooled) as site:
        await survives_over_http(site, pooled_tenants, seed=6)
    await nothing_is_left_on_any_server_connection(pooled)


async def nothing_is_left_on_any_server_connection(pooled: Runtime) -> None:
    """Take all that PgBouncer has for the cell, at once, and look at each."""
    url = (await pooled.registry.cell(FIRST_CELL)).url
    looking = [
        await asyncpg.connect(
            host=url.host, port=url.port, user=url.username, password=url.password, database=url.database,
            statement_cache_size=0,
        )
        for _ in range(SERVER_CONNECTIONS)
    ]  # fmt: skip
    try:
        seen = set()
        for each in looking:
            await each.execute("BEGIN")
            row = await each.fetchrow(
                "SELECT pg_backend_pid() AS pid, current_setting('backtrace_functions') AS seal,"
                " current_user = session_user AS own_role, current_setting('search_path') AS path,"
                " (SELECT setting FROM pg_settings WHERE name = 'row_security') AS row_security"
            )
            assert row is not None
            seen.add(row["pid"])
            assert (row["seal"], row["own_role"], row["row_security"]) == ("", True, "on")
            assert row["path"] == '"$user", public'
            with pytest.raises(asyncpg.PostgresError) as refusal:
                await each.fetchval("SELECT count(*) FROM shared.product")
            assert refusal.value.sqlstate == "SM005"
        assert len(seen) == SERVER_CONNECTIONS
    finally:
        for each in looking:
            each.terminate()


@pytest.mark.pgbouncer
async def test_it_is_really_in_between(pooled: Runtime, pooled_tenants: list[TenantContext]) -> None:
    """More transactions at once than it has connections: they take turns on the server's side."""
    tenant = next(each for each in pooled_tenants if each.placement.tier is Tier.SHARED)

    async def back_end() -> int:
        async with pooled.tenants.reading(tenant) as session:
            pid: int = await session.scalar(text("SELECT pg_backend_pid()"))
            await session.execute(text("SELECT pg_sleep(0.02)"))
            return pid

    pids = await asyncio.gather(*(back_end() for _ in range(40)))
    assert len(set(pids)) <= SERVER_CONNECTIONS


@pytest.mark.pgbouncer
async def test_a_session_setting_does_not_reach_the_next_client(
    pooled: Runtime, pooled_tenants: list[TenantContext]
) -> None:
    vandal, victim = [each for each in pooled_tenants if each.placement.tier is Tier.SHARED][:2]
    for _ in range(SERVER_CONNECTIONS * 2):
        async with pooled.tenants.transaction(vandal) as session:
            for statement in (
                "SET row_security = off",
                "SET search_path = pg_catalog",
                "SET ROLE none",
                "SET TimeZone = 'Asia/Tokyo'",
                "SELECT set_config('strata.emitting', '1', false)",
            ):
                await session.execute(text(statement))

    async def look() -> tuple[str, ...]:
        async with pooled.tenants.reading(victim) as session:
            await session.execute(text("SELECT pg_sleep(0.01), count(*) FROM product"))
            found = await session.execute(
                text(
                    "SELECT current_setting('row_security'), current_setting('TimeZone'), current_setting('search_path')"
                )
            )
            return tuple(found.one())

    assert set(await asyncio.gather(*(look() for _ in range(20)))) == {("on", "UTC", "shared, pg_temp")}


@pytest.mark.pgbouncer
async def test_a_pooler_without_its_server_is_an_error_with_a_name(
    elsewhere: Platform, pooled: Runtime, pooled_tenants: list[TenantContext], tmp_path: Path
) -> None:
    """PgBouncer takes the connection and refuses the statement: that must end, and not be tried for ever."""
    nowhere = PostgresServer("nowhere", f"postgresql://x@127.0.0.1:{free_port()}/x", "none")
    url = (await pooled.registry.cell(FIRST_CELL)).url
    with pgbouncer(nowhere, {str(url.username): str(url.password)}, tmp_path / "b", pool_size=2, wait_s=1) as address:
        async with pooled.catalog_engine.begin() as catalog:
            before = (await catalog.execute(text("SELECT app_address FROM server WHERE name = 'one'"))).scalar_one()
            await catalog.execute(text("UPDATE server SET app_address = :a WHERE name = 'one'"), {"a": address})
        try:
            async with second_process(pooled) as other:
                with pytest.raises(CellUnavailableError):
                    async with asyncio.timeout(60), other.tenants.reading(pooled_tenants[0]) as session:
                        await session.execute(text("SELECT 1"))
        finally:
            async with pooled.catalog_engine.begin() as catalog:
                await catalog.execute(text("UPDATE server SET app_address = :a WHERE name = 'one'"), {"a": before})
