"""The tenant transaction: entering, leaving, and what may not be done in between; on every tier."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError, ResourceClosedError

from strata.inventory.products.models import Product
from strata.runtime import Runtime
from strata.tenancy.cell.connection import TransactionEndedError
from strata.tenancy.cell.door import Isolation
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import ConcurrentUpdateError, NoTenantEnteredError
from strata.tenancy.model import Tier
from tests.builders.intruder import driver_of
from tests.builders.platform import Tenantry
from tests.builders.pools import settled

COUNT = text("SELECT count(*) FROM product")


@pytest.fixture(params=Tier)
async def tenant(request: pytest.FixtureRequest, tenant_on: Tenantry) -> TenantContext:
    return await tenant_on(Tier(request.param))


async def count(runtime: Runtime, tenant: TenantContext) -> int:
    async with runtime.tenants.reading(tenant) as session:
        found: int = await session.scalar(COUNT)
        return found


async def test_the_end_of_the_block_commits(runtime: Runtime, tenant: TenantContext) -> None:
    async with runtime.tenants.transaction(tenant) as session:
        row = Product(sku="a", name="A")
        session.add(row)
    assert row.tenant_id == tenant.id
    assert await count(runtime, tenant) == 1


async def test_an_exception_rolls_back_and_goes_on(runtime: Runtime, tenant: TenantContext) -> None:
    with pytest.raises(ZeroDivisionError):
        async with runtime.tenants.transaction(tenant) as session:
            session.add(Product(sku="a", name="A"))
            await session.flush()
            _ = 1 // 0
    assert await count(runtime, tenant) == 0
    assert (await settled(runtime, tenant.placement.cell)).in_transaction == ()


async def test_a_block_without_a_statement_leaves_nothing_open(runtime: Runtime, tenant: TenantContext) -> None:
    async with runtime.tenants.transaction(tenant):
        pass
    pool = await settled(runtime, tenant.placement.cell)
    assert (pool.checked_out, pool.in_transaction) == (0, ())


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_ending_the_transaction_by_hand_is_refused(runtime: Runtime, tenant: TenantContext, end: str) -> None:
    with pytest.raises(TransactionEndedError):
        async with runtime.tenants.transaction(tenant) as session:
            session.add(Product(sku="a", name="A"))
            await session.flush()
            await getattr(session, end)()
    assert await count(runtime, tenant) == 0


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "END", "ABORT", "COMMIT; BEGIN"])
async def test_sql_that_ends_the_transaction_ends_the_tenant(runtime: Runtime, tenant: TenantContext, end: str) -> None:
    """Whatever comes after reaches no data, and the block does not end as if it had been committed."""
    with pytest.raises((TransactionEndedError, DBAPIError)):
        async with runtime.tenants.transaction(tenant) as session:
            await session.execute(text("INSERT INTO product (sku, name) VALUES ('a', 'A')"))
            await (await driver_of(session)).execute(end)
            with pytest.raises(DBAPIError) as refusal:
                await session.execute(text(f"SELECT * FROM {tenant.placement.schema_name}.product"))
            assert getattr(refusal.value.orig, "sqlstate", None) in {"SM005", "42501"}
    assert (await settled(runtime, tenant.placement.cell)).in_transaction == ()


async def test_a_swallowed_failure_is_not_taken_for_a_commit(runtime: Runtime, tenant: TenantContext) -> None:
    """PostgreSQL answers COMMIT with ROLLBACK then, and says nothing more."""
    with pytest.raises(TransactionEndedError, match="nothing was written"):
        async with runtime.tenants.transaction(tenant) as session:
            await session.execute(text("INSERT INTO product (sku, name) VALUES ('a', 'A')"))
            with pytest.raises(DBAPIError):
                await session.execute(text("SELECT 1 / 0"))
    assert await count(runtime, tenant) == 0


async def test_a_session_kept_after_its_block_is_of_no_use(runtime: Runtime, tenant: TenantContext) -> None:
    async with runtime.tenants.transaction(tenant) as session:
        await session.execute(COUNT)
    with pytest.raises((InvalidRequestError, ResourceClosedError)):
        await session.execute(COUNT)
    with pytest.raises((InvalidRequestError, ResourceClosedError)):
        await session.scalars(select(Product))


async def test_a_connection_of_the_pool_begins_nothing_by_itself(runtime: Runtime, tenant: TenantContext) -> None:
    """Whoever goes to the engine past `tenants.transaction` is refused before any SQL is sent."""
    engine = (await runtime.engines.open(tenant.placement.cell)).engine
    async with engine.connect() as connection:
        with pytest.raises(NoTenantEnteredError):
            await connection.execute(COUNT)


async def test_a_result_still_streaming_does_not_outlive_the_block(runtime: Runtime, tenant: TenantContext) -> None:
    async with runtime.tenants.transaction(tenant) as session:
        await session.execute(
            text("INSERT INTO product (sku, name) SELECT 's' || n, 'x' FROM generate_series(1, 500) AS n")
        )
    async with runtime.tenants.transaction(tenant) as session:
        stream = await session.stream(text("SELECT sku FROM product"))
        first = await stream.fetchone()
        assert first is not None
    with pytest.raises(Exception, match=r"closed|transaction|cursor") as refusal:
        [row async for row in stream]
    assert refusal.value is not None
    pool = await settled(runtime, tenant.placement.cell)
    assert (pool.checked_out, pool.in_transaction) == (0, ())


async def test_a_savepoint_undoes_its_part(runtime: Runtime, tenant: TenantContext) -> None:
    async with runtime.tenants.transaction(tenant) as session:
        session.add(Product(sku="kept", name="A"))
        with pytest.raises(DBAPIError):
            async with session.begin_nested():
                session.add(Product(sku="kept", name="twice"))
        async with session.begin_nested() as savepoint:
            session.add(Product(sku="gone", name="B"))
            await session.flush()
            await savepoint.rollback()
        session.add(Product(sku="also kept", name="C"))
    async with runtime.tenants.reading(tenant) as session:
        assert set(await session.scalars(select(Product.sku))) == {"kept", "also kept"}


async def test_rolling_back_to_a_savepoint_keeps_the_tenant(runtime: Runtime, tenant: TenantContext) -> None:
    """What was set before the savepoint stays: seal, path and role."""
    async with runtime.tenants.transaction(tenant) as session:
        await session.execute(text("SAVEPOINT before"))
        await session.execute(text("INSERT INTO product (sku, name) VALUES ('a', 'A')"))
        await session.execute(text("ROLLBACK TO SAVEPOINT before"))
        assert await session.scalar(COUNT) == 0
        await session.execute(text("INSERT INTO product (sku, name) VALUES ('b', 'B')"))
    assert await count(runtime, tenant) == 1


async def test_a_reading_session_does_not_write(runtime: Runtime, tenant: TenantContext) -> None:
    with pytest.raises(TypeError, match="cannot write"):
        async with runtime.tenants.reading(tenant) as session:
            session.add(Product(sku="a", name="A"))
            await session.flush()
    with pytest.raises(DBAPIError) as refusal:
        async with runtime.tenants.reading(tenant) as session:
            await session.execute(text("INSERT INTO product (sku, name) VALUES ('a', 'A')"))
    assert getattr(refusal.value.orig, "sqlstate", None) == "25006"


@pytest.mark.parametrize(
    "undo",
    [
        "SET TRANSACTION READ WRITE",
        "SET transaction_read_only = off",
        "SELECT set_config('transaction_read_only', 'off', true)",
    ],
)
async def test_read_only_cannot_be_undone(runtime: Runtime, tenant: TenantContext, undo: str) -> None:
    for before in ("SELECT 1", "SAVEPOINT here"):
        with pytest.raises(DBAPIError):
            async with runtime.tenants.reading(tenant) as session:
                await session.execute(text(before))
                await session.execute(text(undo))
                await session.execute(text("INSERT INTO product (sku, name) VALUES ('a', 'A')"))
    assert await count(runtime, tenant) == 0


@pytest.mark.parametrize("isolation", Isolation)
async def test_every_isolation_level_reads_and_writes(
    runtime: Runtime, tenant: TenantContext, isolation: Isolation
) -> None:
    async with runtime.tenants.transaction(tenant, isolation=isolation) as session:
        assert await session.scalar(text("SHOW transaction_isolation")) == isolation.value.lower()
        session.add(Product(sku="a", name="A"))
    assert await count(runtime, tenant) == 1


@pytest.mark.parametrize("isolation", [Isolation.REPEATABLE_READ, Isolation.SERIALIZABLE])
async def test_a_lost_race_has_a_name(runtime: Runtime, tenant: TenantContext, isolation: Isolation) -> None:
    async with runtime.tenants.transaction(tenant) as session:
        session.add(Product(sku="a", name="A"))
    with pytest.raises(ConcurrentUpdateError):
        async with runtime.tenants.transaction(tenant, isolation=isolation) as session:
            await session.execute(COUNT)
            async with runtime.tenants.transaction(tenant) as other:
                await other.execute(text("UPDATE product SET name = 'first'"))
            await session.execute(text("UPDATE product SET name = 'second'"))


async def test_write_skew_is_found_when_committing(runtime: Runtime, tenant: TenantContext) -> None:
    async def insert_when_empty(sku: str, ready: asyncio.Barrier) -> None:
        async with runtime.tenants.transaction(tenant, isolation=Isolation.SERIALIZABLE) as session:
            assert await session.scalar(COUNT) == 0
            await ready.wait()
            session.add(Product(sku=sku, name="x"))

    ready = asyncio.Barrier(2)
    outcomes = await asyncio.gather(
        insert_when_empty("a", ready), insert_when_empty("b", ready), return_exceptions=True
    )
    assert [type(each) for each in outcomes if each is not None] == [ConcurrentUpdateError]
    assert await count(runtime, tenant) == 1


async def test_a_deadlock_has_a_name(runtime: Runtime, tenant: TenantContext) -> None:
    async with runtime.tenants.transaction(tenant) as session:
        session.add_all([Product(sku="a", name="x"), Product(sku="b", name="x")])
    ready = asyncio.Barrier(2)

    async def both(first: str, second: str) -> None:
        async with runtime.tenants.transaction(tenant) as session:
            await session.execute(text("UPDATE product SET name = 'y' WHERE sku = :s"), {"s": first})
            await ready.wait()
            await session.execute(text("UPDATE product SET name = 'y' WHERE sku = :s"), {"s": second})

    outcomes = await asyncio.gather(both("a", "b"), both("b", "a"), return_exceptions=True)
    assert [type(each) for each in outcomes if each is not None] == [ConcurrentUpdateError]
