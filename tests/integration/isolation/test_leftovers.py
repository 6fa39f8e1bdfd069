"""What one tenant leaves behind on a pooled connection, and that the next meets none of it: a pool of one connection."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from strata.platform.settings import PoolSettings
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.intruder import NOT_ENTERED, attempt, driver_of, inside
from tests.builders.platform import Tenantry, second_process

ONE = PoolSettings(shared_size=1, shared_overflow=0, dedicated_size=1, dedicated_overflow=0, acquire_timeout_s=5.0)
COUNT = text("SELECT count(*) FROM product")
ADD = text("INSERT INTO product (sku, name) VALUES (:sku, 'x')")


@pytest.fixture(scope="module")
async def single(runtime: Runtime) -> AsyncIterator[Runtime]:
    async with second_process(runtime, pool=ONE) as made:
        yield made


LEFT = {
    "a mark of ours": "SET strata.emitting = '1'",
    "search_path": "SET search_path = pg_catalog",
    "role": "SET ROLE none",
    "row security": "SET row_security = off",
    "time-out": "SET statement_timeout = '1ms'",
    "lock time-out": "SET lock_timeout = '1ms'",
    "strings": "SET standard_conforming_strings = off",
    "time zone": "SET TimeZone = 'Asia/Tokyo'",
    "dates": "SET DateStyle = 'SQL, DMY'",
    "nulls": "SET transform_null_equals = on",
    "read only": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "deferrable": "SET default_transaction_deferrable = on",
    "isolation": "SET default_transaction_isolation = 'serializable'",
    "bytes": "SET bytea_output = 'escape'",
    "planner": "SET enable_indexscan = off",
    "held cursor": "DECLARE keep CURSOR WITH HOLD FOR SELECT * FROM product",
}
_STATE = """
SELECT current_setting('row_security'), current_setting('statement_timeout'), current_setting('lock_timeout'),
    current_setting('standard_conforming_strings'), current_setting('TimeZone'), current_setting('DateStyle'),
    current_setting('transform_null_equals'), current_setting('transaction_read_only'),
    current_setting('transaction_deferrable'), current_setting('transaction_isolation'), current_setting('bytea_output'),
    current_setting('enable_indexscan'), current_setting('search_path'), current_user::text
"""


@pytest.mark.parametrize("left", LEFT)
async def test_the_next_tenant_meets_a_clean_connection(single: Runtime, tenant_on: Tenantry, left: str) -> None:
    vandal, next_one = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED)
    async with single.tenants.transaction(next_one) as session:
        await session.execute(ADD, {"sku": left})
        clean = (await session.execute(text(_STATE))).one()
        pid = await session.scalar(text("SELECT pg_backend_pid()"))

    async with inside(single, vandal) as connection:
        await connection.execute(LEFT[left])

    async with single.tenants.transaction(next_one) as session:
        assert (await session.execute(text(_STATE))).one() == clean
        assert await session.scalar(COUNT) == 1
        assert await session.scalar(text("SELECT pg_backend_pid()")) == pid, "on another connection this shows nothing"


async def test_nobody_listens_for_longer_than_the_next_transaction(single: Runtime, tenant_on: Tenantry) -> None:
    """UNLISTEN takes effect at the commit; no message is delivered before."""
    one, other = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED)
    channels = "SELECT count(*) FROM pg_listening_channels()"
    async with inside(single, one) as connection:
        await connection.execute("LISTEN gossip")
    async with inside(single, other) as connection:
        assert await connection.fetchval(channels) == 1, "this shows nothing unless it is the same connection"
    async with inside(single, other) as connection:
        assert await connection.fetchval(channels) == 0


async def test_a_held_cursor_is_gone(single: Runtime, tenant_on: Tenantry) -> None:
    one, other = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED)
    async with inside(single, one) as connection:
        await connection.execute("INSERT INTO product (sku, name) VALUES ('secret', 'x')")
        await connection.execute("DECLARE keep CURSOR WITH HOLD FOR SELECT sku FROM product")
    async with inside(single, other) as connection:
        assert (await attempt(connection, "FETCH ALL FROM keep")).sqlstate == "34000"


async def test_a_statement_another_tenant_prepared_sees_own_rows_only(single: Runtime, tenant_on: Tenantry) -> None:
    one, other = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED)
    async with inside(single, one) as connection:
        await connection.execute("INSERT INTO product (sku, name) VALUES ('secret', 'x')")
        await connection.execute("PREPARE steal AS SELECT sku, tenant_id FROM product")
        assert len((await attempt(connection, "EXECUTE steal")).rows) == 1
    async with inside(single, other) as connection:
        assert (await attempt(connection, "EXECUTE steal")).rows == ()


async def test_a_statement_of_the_application_cannot_be_replaced(single: Runtime, tenant_on: Tenantry) -> None:
    """Were its name known or guessed, one tenant's SQL could put a DELETE in the place of the next one's SELECT."""
    vandal, victim = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED)
    async with single.tenants.transaction(victim) as session:
        await session.execute(ADD, {"sku": "dear"})
        await session.execute(COUNT)

    async with inside(single, vandal) as connection:
        assert (await attempt(connection, "SELECT name FROM pg_prepared_statements")).sqlstate == "42501"
        for number in range(300):
            for name in (f"__asyncpg_stmt_{number:x}__", f"s{number}", f"_p{number}"):
                await attempt(connection, f'DEALLOCATE "{name}"')
                await attempt(connection, f'PREPARE "{name}" AS DELETE FROM product RETURNING 1::bigint')

    async with single.tenants.transaction(victim) as session:
        assert await session.scalar(COUNT) == 1
        assert await session.scalar(COUNT) == 1


async def test_deallocating_everything_costs_the_neighbour_one_request_at_most(
    single: Runtime, tenant_on: Tenantry
) -> None:
    vandal, victim = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED)
    async with single.tenants.transaction(victim) as session:
        await session.execute(ADD, {"sku": "dear"})
    async with single.tenants.transaction(victim) as session:
        await session.execute(COUNT)
    async with inside(single, vandal) as connection:
        await connection.execute("DEALLOCATE ALL")

    with pytest.raises(DBAPIError) as failure:
        async with single.tenants.transaction(victim) as session:
            await session.execute(COUNT)
    assert getattr(failure.value.orig, "sqlstate", None) == "26000"
    async with single.tenants.transaction(victim) as session:
        assert await session.scalar(COUNT) == 1


async def test_the_same_statement_follows_the_tenant(single: Runtime, tenant_on: Tenantry) -> None:
    """Prepared once on the connection, on its generic plan by now, and between tiers."""
    tenants = [await tenant_on(tier) for tier in (Tier.SHARED, Tier.SCHEMA, Tier.SHARED, Tier.SCHEMA)]
    for number, context in enumerate(tenants):
        async with single.tenants.transaction(context) as session:
            for row in range(number + 1):
                await session.execute(ADD, {"sku": f"s{row}"})
    for _ in range(8):
        for number, context in enumerate(tenants):
            async with single.tenants.reading(context) as session:
                assert await session.scalar(COUNT) == number + 1


async def test_nothing_is_entered_between_transactions(single: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    async with single.tenants.transaction(context) as session:
        await session.execute(ADD, {"sku": "x"})
        driver = await driver_of(session)
    # The pool's connection, taken past Strata: what the next client of a transaction pooler would get.
    assert await driver.fetchval("SELECT current_setting('backtrace_functions')") == ""
    assert await driver.fetchval("SELECT current_user = session_user")
    with pytest.raises(Exception, match="no tenant has been entered") as refusal:
        await driver.fetchval("SELECT count(*) FROM shared.product")
    assert getattr(refusal.value, "sqlstate", None) == NOT_ENTERED
