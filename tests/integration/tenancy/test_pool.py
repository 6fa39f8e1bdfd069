"""The pools of a process: shared fairly, bounded, closed when idle, and one dead cell is nobody else's trouble."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from strata.platform.settings import PoolSettings
from strata.runtime import Runtime
from strata.tenancy.cell.admission import CellBusyError
from strata.tenancy.cell.door import Isolation
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import CellUnavailableError
from strata.tenancy.model import Tier
from tests.builders.platform import FIRST_CELL, Tenantry, admin_of, new_platform, second_process, standing
from tests.builders.pools import settled
from tests.servers import PostgresServer, RedisServer

PID = text("SELECT pg_backend_pid()")
COUNT = text("SELECT count(*) FROM product")


async def pid_of(runtime: Runtime, tenant: TenantContext) -> int:
    async with runtime.tenants.transaction(tenant) as session:
        pid: int = await session.scalar(PID)
        return pid


async def back_ends(runtime: Runtime, tenant: TenantContext) -> int:
    async with admin_of(runtime, tenant.placement.cell) as admin:
        count: int = await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = $1",
            f"{runtime.settings.role_prefix}_app",
        )
        return count


async def test_a_flood_of_one_tenant_leaves_its_neighbour_a_connection(runtime: Runtime, tenant_on: Tenantry) -> None:
    flooding, neighbour = await tenant_on(Tier.SHARED), await tenant_on(Tier.SCHEMA)
    small = PoolSettings(shared_size=5, shared_overflow=0, acquire_timeout_s=10.0)
    async with second_process(runtime, pool=small) as other:
        await pid_of(other, neighbour)

        async def slow() -> None:
            async with other.tenants.transaction(flooding) as session:
                await session.execute(text("SELECT pg_sleep(0.2)"))

        flood = [asyncio.create_task(slow()) for _ in range(60)]
        await asyncio.sleep(0.05)
        waiting = []
        for _ in range(5):
            before = time.monotonic()
            await pid_of(other, neighbour)
            waiting.append(time.monotonic() - before)
        still_flooding = sum(not each.done() for each in flood)
        await asyncio.gather(*flood)
    assert still_flooding > 20, "the flood was over before anything was shown"
    # First come, first served, each would have stood behind the whole queue.
    assert max(waiting) < 1.0


async def test_past_the_bound_the_answer_is_a_503_at_once(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    tiny = PoolSettings(shared_size=1, shared_overflow=0, acquire_timeout_s=30.0, waiting_limit=2)
    async with second_process(runtime, pool=tiny) as other, other.tenants.transaction(tenant) as session:
        await session.execute(PID)
        waiting = [asyncio.create_task(pid_of(other, tenant)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(CellBusyError) as refusal:
            await pid_of(other, tenant)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert refusal.value.status == 503
    assert refusal.value.headers["Retry-After"] == "1"


async def test_a_back_end_that_has_seen_enough_schemas_is_replaced(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenants = [await tenant_on(Tier.SCHEMA) for _ in range(3)]
    worn = PoolSettings(shared_size=1, shared_overflow=0, recycle_after_schemas=2)
    async with second_process(runtime, pool=worn) as other:
        same = [await pid_of(other, tenant) for tenant in (*tenants[:2], *tenants[:2])]
        third = await pid_of(other, tenants[2])
        fresh = await pid_of(other, tenants[0])
    assert len({*same, third}) == 1
    assert fresh != third


async def test_a_back_end_is_replaced_after_so_many_transactions(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    worn = PoolSettings(shared_size=1, shared_overflow=0, recycle_after_transactions=3)
    async with second_process(runtime, pool=worn) as other:
        pids = [await pid_of(other, tenant) for _ in range(7)]
    assert [len(set(pids[:3])), len(set(pids[3:6])), len(set(pids))] == [1, 1, 3]


async def test_a_tenant_meets_the_connection_it_had(runtime: Runtime, tenant_on: Tenantry) -> None:
    """Alternating schemas on a connection has the back end plan anew."""
    first, second = await tenant_on(Tier.SCHEMA), await tenant_on(Tier.SCHEMA)
    async with second_process(runtime, pool=PoolSettings(shared_size=2, shared_overflow=0)) as other:
        async with other.tenants.transaction(first) as session:
            own = await session.scalar(PID)
            others = await pid_of(other, second)
        assert own != others
        for _ in range(3):
            assert await pid_of(other, second) == others
            assert await pid_of(other, first) == own


async def test_dedicated_pools_share_one_budget_and_close_when_idle(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenants = [await tenant_on(Tier.DEDICATED) for _ in range(4)]
    tight = PoolSettings(dedicated_budget=2, idle_close_s=0.4, acquire_timeout_s=5.0)
    async with second_process(runtime, pool=tight) as other:
        for _ in range(2):
            await asyncio.gather(*(pid_of(other, tenant) for tenant in tenants))
        open_now = [await back_ends(runtime, tenant) for tenant in tenants]
        assert sum(open_now) <= 2, "four databases, two connections between them"
        for _ in range(60):
            if not any([await back_ends(runtime, tenant) for tenant in tenants]):
                break
            await asyncio.sleep(0.1)
        assert [await back_ends(runtime, tenant) for tenant in tenants] == [0, 0, 0, 0]
        assert [other.engines.opened(tenant.placement.cell) for tenant in tenants] == [None] * 4
        await pid_of(other, tenants[0])


async def test_a_shared_pool_keeps_its_size_and_closes_the_rest(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    settings = PoolSettings(shared_size=2, shared_overflow=6, idle_close_s=0.4)
    async with second_process(runtime, pool=settings) as other:

        async def hold() -> None:
            async with other.tenants.transaction(tenant) as session:
                await session.execute(text("SELECT pg_sleep(0.1)"))

        await asyncio.gather(*(hold() for _ in range(8)))
        pool = (await other.engines.open(FIRST_CELL)).pool
        assert pool.idle > 2
        for _ in range(60):
            if pool.idle == 2:
                break
            await asyncio.sleep(0.1)
        assert pool.idle == 2


async def test_a_readers_commit_goes_behind_its_answer(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    async with second_process(runtime, pool=PoolSettings(shared_size=1, shared_overflow=0)) as other:
        pool = (await other.engines.open(FIRST_CELL)).pool
        async with other.tenants.reading(tenant) as session:
            await session.execute(COUNT)
        assert pool.in_use == 1, "the answer waited for COMMIT"
        await settled(other, FIRST_CELL)
        assert pool.in_use == 0
        async with other.tenants.reading(tenant, isolation=Isolation.SERIALIZABLE) as session:
            await session.execute(COUNT)
        assert pool.in_use == 0, "COMMIT may yet refuse a SERIALIZABLE reader"


@pytest.fixture(scope="module")
async def apart(
    second_postgres_server: PostgresServer,
    postgres_server: PostgresServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Runtime]:
    """A platform whose cells may be made unreachable."""
    directory: Path = tmp_path_factory.mktemp("apart")
    async with standing(new_platform(postgres_server, second_postgres_server, redis_server, directory)) as made:
        yield made


async def test_a_dead_dedicated_cell_costs_nobody_else_anything(apart: Runtime) -> None:
    tenant_on = Tenantry(apart)
    dead, neighbour = await tenant_on(Tier.DEDICATED), await tenant_on(Tier.DEDICATED)
    await pid_of(apart, dead)
    url = await apart.registry.admin_url_of_cell(dead.placement.cell)
    async with admin_of(apart, FIRST_CELL) as admin:
        await admin.execute(f'ALTER DATABASE "{url.database}" ALLOW_CONNECTIONS false')
        await admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", url.database
        )
        outcomes = await asyncio.gather(
            *(pid_of(apart, dead) for _ in range(20)),
            *(pid_of(apart, neighbour) for _ in range(20)),
            return_exceptions=True,
        )
        assert {type(each) for each in outcomes[:20]} == {CellUnavailableError}
        assert {type(each) for each in outcomes[20:]} == {int}
        await admin.execute(f'ALTER DATABASE "{url.database}" ALLOW_CONNECTIONS true')
    for _ in range(100):
        try:
            await pid_of(apart, dead)
            break
        except CellUnavailableError:
            await asyncio.sleep(0.1)
    assert await pid_of(apart, dead)
