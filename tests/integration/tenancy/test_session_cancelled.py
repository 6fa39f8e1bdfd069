"""Cancelled at every await there is: the pool is whole, nothing stays open, nothing half done is written."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import text

from strata.inventory.products.models import Product
from strata.platform.settings import PoolSettings
from strata.runtime import Runtime
from strata.tenancy.cell.door import Isolation
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.cancelling import cancelled_at
from tests.builders.platform import Tenantry, second_process
from tests.builders.pools import settled

ONE = PoolSettings(shared_size=1, shared_overflow=0, dedicated_size=1, dedicated_overflow=0, acquire_timeout_s=5.0)
MOST_STEPS = 400


@pytest.fixture(scope="module")
async def single(runtime: Runtime) -> AsyncIterator[Runtime]:
    """One connection only: were it lost or left open, the next transaction would fail."""
    async with second_process(runtime, pool=ONE) as made:
        yield made


async def write(runtime: Runtime, tenant: TenantContext, sku: str) -> None:
    async with runtime.tenants.transaction(tenant) as session:
        session.add(Product(sku=sku, name="x"))


async def savepoints(runtime: Runtime, tenant: TenantContext, sku: str) -> None:
    async with runtime.tenants.transaction(tenant) as session:
        async with session.begin_nested():
            session.add(Product(sku=sku, name="x"))
        await session.execute(text("SELECT count(*) FROM product"))


async def serializable(runtime: Runtime, tenant: TenantContext, sku: str) -> None:
    async with runtime.tenants.transaction(tenant, isolation=Isolation.SERIALIZABLE) as session:
        session.add(Product(sku=sku, name="x"))


async def stream(runtime: Runtime, tenant: TenantContext, sku: str) -> None:
    async with runtime.tenants.transaction(tenant) as session:
        await session.execute(text("INSERT INTO product (sku, name) VALUES (:sku, 'x')"), {"sku": sku})
        async for _ in await session.stream(text("SELECT generate_series(1, 120)")):
            pass


async def fail(runtime: Runtime, tenant: TenantContext, sku: str) -> None:
    """Cancelled while another error is on its way out."""
    try:
        async with runtime.tenants.transaction(tenant) as session:
            session.add(Product(sku=sku, name="x"))
            await session.flush()
            raise _OnPurpose  # noqa: TRY301 - the block must see it
    except _OnPurpose:
        await write(runtime, tenant, sku)


async def from_nothing(runtime: Runtime, tenant: TenantContext, sku: str) -> None:
    """The pool has yet to be made and its connection to be opened."""
    await write(runtime, tenant, sku)


class _OnPurpose(Exception):  # noqa: N818 - a test's way out
    pass


Work = Callable[[Runtime, TenantContext, str], Coroutine[Any, Any, None]]


WORKS: list[Work] = [write, savepoints, serializable, stream, fail, from_nothing]


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
@pytest.mark.parametrize("tier", [pytest.param(Tier.SHARED, marks=pytest.mark.slow), Tier.SCHEMA])
async def test_at_every_await(
    single: Runtime, tenant_on: Tenantry, work: Work, tier: Tier, caplog: pytest.LogCaptureFixture
) -> None:
    tenant, neighbour = await tenant_on(tier), await tenant_on(Tier.SHARED)
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: unhandled.append(report))
    cell = tenant.placement.cell
    written: list[str] = []
    try:
        with caplog.at_level(logging.WARNING):
            for step in range(1, MOST_STEPS):
                sku = f"step-{step}"
                if work is from_nothing:
                    await single.engines.forget(cell)
                cancelled = await cancelled_at(work(single, tenant, sku), step)
                # At once, while the cancelled one may still be clearing up: the neighbour gets a clean connection.
                async with single.tenants.transaction(neighbour) as session:
                    assert await session.scalar(text("SELECT count(*) FROM product")) == 0
                written.append(sku)
                if not cancelled:
                    break
            else:
                pytest.fail("it never came to its end")
            pool = await settled(single, cell)
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
    assert step > 3, "hardly anything was cancelled"
    assert (pool.checked_out, pool.in_transaction) == (0, ())
    async with single.tenants.reading(tenant) as session:
        found = set((await session.execute(text("SELECT sku FROM product"))).scalars())
    assert found <= set(written)
    assert f"step-{step}" in found
    gc.collect()
    # asyncpg 0.32 abandons the future of a connection that is cancelled while it is made; nothing of it is left.
    assert [each for each in unhandled if str(each.get("exception")) != "unexpected connection_lost() call"] == []
    assert [record.getMessage() for record in caplog.records if record.name.startswith(("sqlalchemy", "asyncio"))] == []


async def test_many_at_once_cancelled_at_random_moments(runtime: Runtime, tenant_on: Tenantry) -> None:
    """Waiting for the pool, entering, within, committing: two connections for forty tasks."""
    small = PoolSettings(shared_size=2, shared_overflow=0, acquire_timeout_s=5.0)
    tenants = [await tenant_on(tier) for tier in (Tier.SHARED, Tier.SCHEMA, Tier.SHARED)]
    async with second_process(runtime, pool=small) as other:

        async def one(number: int) -> None:
            tenant = tenants[number % 3]
            async with other.tenants.transaction(tenant) as session:
                session.add(Product(sku=f"n{number}", name=str(tenant.id)))
                await session.flush()
                names = set((await session.execute(text("SELECT name FROM product"))).scalars())
                assert names == {str(tenant.id)}

        tasks = [asyncio.create_task(one(number)) for number in range(120)]
        for number, task in enumerate(tasks):
            await asyncio.sleep(0.002)
            if number % 2:
                task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [each for each in outcomes if each is not None and not isinstance(each, asyncio.CancelledError)] == []
        pool = await settled(other, tenants[0].placement.cell)
        assert (pool.checked_out, pool.in_transaction) == (0, ())
        for tenant in tenants:
            async with other.tenants.reading(tenant) as session:
                names = set((await session.execute(text("SELECT name FROM product"))).scalars())
            assert names <= {str(tenant.id)}


@pytest.mark.parametrize("statement", ["SELECT pg_sleep(20)", "SELECT count(*) FROM generate_series(1, 500000000)"])
async def test_what_was_running_stops(runtime: Runtime, tenant_on: Tenantry, statement: str) -> None:
    """A client that went away must not leave PostgreSQL at work, with the tenant's lock held and its move held up."""
    tenant = await tenant_on(Tier.SHARED)

    async def long() -> None:
        async with runtime.tenants.transaction(tenant) as session:
            await session.execute(text(statement))

    task = asyncio.create_task(long())
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pool = await settled(runtime, tenant.placement.cell)
    assert (pool.checked_out, pool.in_transaction) == (0, ())
