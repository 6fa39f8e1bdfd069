"""Views, functions and grants that somebody with rights may add to a cell one day: which of them hold, and which do not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from strata.runtime import Runtime
from strata.tenancy.cell.inspection import lockdown_gaps, table_weaknesses
from strata.tenancy.model import Tier
from tests.builders.intruder import NOT_ENTERED, app_login, attempt, inside
from tests.builders.platform import FIRST_CELL, Tenantry, admin_of
from tests.builders.scenes import Meeting, Scene, new_scene


@pytest.fixture(scope="module")
async def neighbours(runtime: Runtime, tenant_on: Tenantry) -> Scene:
    return await new_scene(runtime, tenant_on, Meeting.SHARED_SHARED)


@asynccontextmanager
async def added(runtime: Runtime, make: str, drop: str) -> AsyncIterator[None]:
    role = f"{runtime.settings.role_prefix}_app"
    async with admin_of(runtime, FIRST_CELL) as admin:
        await admin.execute(make.format(role=role))
        try:
            yield
        finally:
            await admin.execute(drop)


async def tenants_seen(runtime: Runtime, scene: Scene, query: str) -> set[object]:
    async with inside(runtime, scene.attacker) as connection:
        outcome = await attempt(connection, query)
    assert outcome.sqlstate is None, outcome
    return {row[0] for row in outcome.rows}


async def test_a_view_that_runs_as_its_caller_holds(runtime: Runtime, neighbours: Scene) -> None:
    make = (
        "CREATE VIEW shared.peek WITH (security_invoker) AS SELECT * FROM shared.product;"
        "GRANT SELECT ON shared.peek TO {role}"
    )
    async with added(runtime, make, "DROP VIEW shared.peek"):
        assert await tenants_seen(runtime, neighbours, "SELECT tenant_id FROM peek") == {neighbours.attacker.id}
        async with app_login(runtime, FIRST_CELL) as connection, connection.transaction():
            assert (await attempt(connection, "SELECT * FROM shared.peek")).sqlstate == NOT_ENTERED


async def test_a_function_that_runs_as_its_caller_holds(runtime: Runtime, neighbours: Scene) -> None:
    make = (
        "CREATE FUNCTION shared.peek() RETURNS SETOF uuid LANGUAGE sql AS 'SELECT tenant_id FROM shared.product';"
        "GRANT EXECUTE ON FUNCTION shared.peek() TO {role}"
    )
    async with added(runtime, make, "DROP FUNCTION shared.peek()"):
        assert await tenants_seen(runtime, neighbours, "SELECT peek()") == {neighbours.attacker.id}


LEAKS = {
    "view of its owner": (
        "CREATE VIEW shared.peek AS SELECT * FROM shared.product; GRANT SELECT ON shared.peek TO {role}",
        "DROP VIEW shared.peek",
        "SELECT tenant_id FROM peek",
    ),
    "materialised view": (
        "CREATE MATERIALIZED VIEW shared.peek AS SELECT * FROM shared.product; GRANT SELECT ON shared.peek TO {role}",
        "DROP MATERIALIZED VIEW shared.peek",
        "SELECT tenant_id FROM peek",
    ),
    "function of its owner": (
        (
            "CREATE FUNCTION shared.peek() RETURNS SETOF uuid LANGUAGE sql SECURITY DEFINER AS"
            " 'SELECT tenant_id FROM shared.product'; GRANT EXECUTE ON FUNCTION shared.peek() TO {role}"
        ),
        "DROP FUNCTION shared.peek()",
        "SELECT peek()",
    ),
    "wider policy": (
        "CREATE POLICY door ON shared.product FOR SELECT USING (true)",
        "DROP POLICY door ON shared.product",
        "SELECT tenant_id FROM product",
    ),
    "no row-level security": (
        "ALTER TABLE shared.product DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE shared.product ENABLE ROW LEVEL SECURITY",
        "SELECT tenant_id FROM product",
    ),
}


async def test_the_doctor_misses_the_event_trigger(runtime: Runtime) -> None:
    async with added(
        runtime, "ALTER EVENT TRIGGER strata_refuse_ddl DISABLE", "ALTER EVENT TRIGGER strata_refuse_ddl ENABLE"
    ):
        assert await found_by_the_doctor(runtime) != []


@pytest.mark.parametrize("mistake", LEAKS)
async def test_what_would_leak_does(runtime: Runtime, neighbours: Scene, mistake: str) -> None:
    """Why test_walls_in_the_catalog.py refuses such things, and that `strata doctor` finds them."""
    make, drop, query = LEAKS[mistake]
    assert await found_by_the_doctor(runtime) == []
    async with added(runtime, make, drop):
        assert neighbours.victim_id in await tenants_seen(runtime, neighbours, query)
        assert await found_by_the_doctor(runtime) != []
    assert await found_by_the_doctor(runtime) == []


async def found_by_the_doctor(runtime: Runtime) -> list[object]:
    role = f"{runtime.settings.role_prefix}_app"
    async with admin_of(runtime, FIRST_CELL) as admin:
        return [*await table_weaknesses(admin), *await lockdown_gaps(admin, role)]


async def test_statistics_of_values_are_not_shown(runtime: Runtime, neighbours: Scene) -> None:
    """pg_stats leaves tables out whose rows one may not all see; pg_statistic itself is closed."""
    async with admin_of(runtime, FIRST_CELL) as admin:
        await admin.execute("ANALYZE shared.product")
        assert await admin.fetchval(
            "SELECT count(*) FROM pg_stats WHERE schemaname = 'shared' AND tablename = 'product'"
        )
    async with inside(runtime, neighbours.attacker) as connection:
        found = await connection.fetchval("SELECT count(*) FROM pg_stats WHERE tablename = 'product'")
    assert found == 0


async def test_what_a_neighbour_says_by_notify_is_all_that_arrives(runtime: Runtime, tenant_on: Tenantry) -> None:
    """NOTIFY is a statement that cannot be revoked: two tenants in collusion can talk, and nobody overhears a third."""
    heard: list[str] = []
    one, other = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED)
    async with app_login(runtime, FIRST_CELL) as ear:
        await ear.add_listener("strata", lambda *event: heard.append(str(event)))
        for context in (one, other):
            async with inside(runtime, context) as connection:
                await connection.execute("INSERT INTO product (sku, name) VALUES ('quiet', 'x')")
        await ear.fetchval("SELECT 1")
    assert heard == []
