"""What a pool does when servers hang, callers give up and connections die between its fingers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine

from strata.platform.database import addresses
from strata.platform.settings import PoolSettings
from strata.runtime import Runtime
from strata.tenancy.cell.connection import TransactionEndedError
from strata.tenancy.cell.pool import CellPool
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import CellUnavailableError
from strata.tenancy.model import Tier
from tests.builders.events import until
from tests.builders.platform import FIRST_CELL, Tenantry, second_process
from tests.builders.pools import settled

PID = text("SELECT pg_backend_pid()")
COUNT = text("SELECT count(*) FROM product")
ADD = text("INSERT INTO product (sku, name) SELECT 's' || n, 'x' FROM generate_series(1, 500) AS n")
ONE = PoolSettings(shared_size=1, shared_overflow=0, acquire_timeout_s=1.0)


@contextmanager
def hung(pid: int) -> Iterator[None]:
    """A back end of this machine that answers nothing, as one on a disk that hangs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def pid_of(runtime: Runtime, tenant: TenantContext) -> int:
    async with runtime.tenants.transaction(tenant) as session:
        pid: int = await session.scalar(PID)
        return pid


async def test_the_connections_of_a_hung_cell_do_not_hold_the_budget(runtime: Runtime, tenant_on: Tenantry) -> None:
    hangs, neighbour = await tenant_on(Tier.DEDICATED), await tenant_on(Tier.DEDICATED)
    tight = PoolSettings(dedicated_budget=1, acquire_timeout_s=3.0)
    async with second_process(runtime, pool=tight) as other:
        with hung(await pid_of(other, hangs)):
            assert await pid_of(other, neighbour)


async def test_a_process_ends_though_a_server_hangs_over_a_readers_commit(
    runtime: Runtime, tenant_on: Tenantry
) -> None:
    tenant = await tenant_on(Tier.SHARED)
    async with second_process(runtime, pool=ONE) as other:
        async with other.tenants.reading(tenant) as session:
            pid = await session.scalar(PID)
            os.kill(pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(10):
                await other.engines.close()
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_requests_that_give_up_leave_no_more_connections_opening_than_the_pool_may_have() -> None:
    begun: list[asyncio.StreamWriter] = []

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = PoolSettings(acquire_timeout_s=1.0)
    engine = create_async_engine(
        f"postgresql+asyncpg://a@127.0.0.1:{port}/a", poolclass=NullPool, connect_args={"timeout": 1.0, "ssl": False}
    )
    pool = CellPool("hung", engine, settings, size=2, overflow=0, budget=None)
    try:
        for _ in range(10):
            asked = asyncio.create_task(pool.acquire(uuid4(), "shared"))
            await asyncio.sleep(0.03)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
        assert len(begun) == 2
        await until(lambda: pool.in_use == 0, "a place in the pool was lost")
        with pytest.raises(CellUnavailableError):
            await pool.acquire(uuid4(), "shared")
    finally:
        await pool.close()
        for writer in begun:
            writer.close()
        server.close()


async def test_of_many_who_find_a_pool_out_of_date_none_closes_the_next_one(runtime: Runtime) -> None:
    async with second_process(runtime, pool=ONE) as other:
        stale = await other.engines.open(FIRST_CELL)
        await other.engines.forget(FIRST_CELL, stale)
        renewed = await other.engines.open(FIRST_CELL)
        await other.engines.forget(FIRST_CELL, stale)
        assert other.engines.opened(FIRST_CELL) is renewed
        assert renewed is not stale


async def test_a_result_kept_streaming_does_not_break_the_next_tenants_transaction(
    runtime: Runtime, tenant_on: Tenantry
) -> None:
    keeper, neighbour = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED)
    async with second_process(runtime, pool=ONE) as other:
        async with other.tenants.transaction(keeper) as session:
            await session.execute(ADD)
        async with other.tenants.reading(keeper) as reader:
            stream = await reader.stream(text("SELECT sku FROM product"))
            await stream.fetchone()
        async with other.tenants.transaction(neighbour) as session:
            await session.execute(COUNT)
            with pytest.raises(TransactionEndedError):
                _ = [row async for row in stream]
            assert await session.scalar(COUNT) == 0


@pytest.mark.parametrize("end", ["close", "reset", "invalidate"])
async def test_a_session_closed_within_its_block_is_not_taken_for_written(
    runtime: Runtime, tenant_on: Tenantry, end: str
) -> None:
    tenant = await tenant_on(Tier.SHARED)
    with pytest.raises(TransactionEndedError):
        async with runtime.tenants.transaction(tenant) as session:
            await session.execute(ADD)
            await getattr(session, end)()
    assert (await settled(runtime, FIRST_CELL)).checked_out == 0


async def test_a_connection_set_to_autocommit_is_nobody_elses(runtime: Runtime, tenant_on: Tenantry) -> None:
    """Lent again as it is, it would lose what the next tenant writes, and say nothing."""
    meddler, neighbour = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED)
    async with second_process(runtime, pool=ONE) as other:
        with pytest.raises(AttributeError):
            async with other.tenants.transaction(meddler) as session:
                _ = await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        with pytest.raises(TransactionEndedError):
            async with other.tenants.transaction(meddler) as session:
                raw = await (await session.connection()).get_raw_connection()
                raw.dbapi_connection.set_isolation_level("autocommit")  # type: ignore[union-attr]
                await session.execute(ADD)
        async with other.tenants.transaction(neighbour) as session:
            await session.execute(ADD)
        async with other.tenants.reading(neighbour) as reader:
            assert await reader.scalar(COUNT) == 500


async def test_a_connection_that_dies_under_the_rollback_does_not_hide_the_callers_error(
    runtime: Runtime, tenant_on: Tenantry
) -> None:
    tenant = await tenant_on(Tier.SHARED)
    dsn = addresses.libpq(await runtime.registry.admin_url_of_cell(FIRST_CELL))

    async def fail() -> None:
        async with runtime.tenants.transaction(tenant) as session:
            pid = await session.scalar(PID)
            # Nothing is awaited meanwhile: the process learns of it from the answer to its ROLLBACK.
            with psycopg.connect(dsn) as admin:
                admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            message = "the caller's own"
            raise ValueError(message)

    with pytest.raises(ValueError, match="the caller's own"):
        await fail()
    assert (await settled(runtime, FIRST_CELL)).checked_out == 0
