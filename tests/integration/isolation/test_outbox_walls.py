"""The outbox is one table for all tenants of a cell: nobody reads it, and nobody writes another's events into it."""

from __future__ import annotations

import pytest

from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.intruder import FORBIDDEN, NOT_ENTERED, app_login, attempt, inside, named
from tests.builders.platform import Tenantry, admin_of

BAD_CAPABILITY = "SM004"
EMIT = "SELECT strata.emit('test.noted', 1, '{\"number\": 1, \"writer\": 0}')"


@pytest.fixture(scope="module", params=Tier)
async def tenant(request: pytest.FixtureRequest, tenant_on: Tenantry) -> TenantContext:
    return await tenant_on(Tier(request.param))


@pytest.fixture(scope="module")
async def neighbour(runtime: Runtime, tenant_on: Tenantry) -> TenantContext:
    context = await tenant_on(Tier.SHARED)
    async with inside(runtime, context) as connection:
        await connection.execute(EMIT)
    return context


async def test_no_statement_reaches_the_table(runtime: Runtime, tenant: TenantContext) -> None:
    async with inside(runtime, tenant) as connection:
        await connection.execute(EMIT)
        for statement in (
            "SELECT * FROM strata.outbox",
            "SELECT count(*) FROM strata.outbox",
            "INSERT INTO strata.outbox SELECT * FROM strata.outbox",
            "UPDATE strata.outbox SET payload = '{}'",
            "DELETE FROM strata.outbox",
            "SELECT nextval('strata.outbox_position')",
            "SELECT setval('strata.outbox_position', 1)",
            "SELECT last_value FROM strata.outbox_position",
            "SELECT strata.entered()",
            "SELECT strata.check_relay(NULL, '')",
        ):
            assert (await attempt(connection, statement)).sqlstate == FORBIDDEN, statement


async def test_the_table_is_closed_even_to_a_grant_made_by_mistake(
    runtime: Runtime, tenant: TenantContext, neighbour: TenantContext
) -> None:
    """Forced row-level security without a policy."""
    role = f"{runtime.settings.role_prefix}_app"
    async with admin_of(runtime, neighbour.placement.cell) as admin:
        assert await admin.fetchval("SELECT count(*) FROM strata.outbox WHERE tenant_id = $1", neighbour.id) == 1
        await admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON strata.outbox TO {role}")
        try:
            async with app_login(runtime, neighbour.placement.cell) as connection:
                assert await connection.fetch("SELECT * FROM strata.outbox") == []
                assert await connection.execute("DELETE FROM strata.outbox") == "DELETE 0"
        finally:
            await admin.execute(f"REVOKE ALL ON strata.outbox FROM {role}")


async def test_the_relays_functions_want_a_capability_that_no_tenant_has(
    runtime: Runtime, tenant: TenantContext, neighbour: TenantContext
) -> None:
    """Not for its own rows either, and one tenant's opens no other's."""
    secret = (await runtime.registry.cell(neighbour.placement.cell)).secret
    others = f"'\\x{secret.derived(f'relay|{tenant.id}').hex()}'"
    schema_tenant = tenant.placement.tier is Tier.SCHEMA
    async with inside(runtime, tenant) as connection:
        for capability in ("''", "NULL", "sha256('x')", others):
            for statement in (
                f"SELECT strata.outbox_waiting({capability}, '00000000-0000-0000-0000-000000000000', 10)",
                f"SELECT strata.outbox_take({named(neighbour.id)}, {capability}, 0, 0, 10, 1000)",
                f"SELECT strata.outbox_acknowledge({named(neighbour.id)}, {capability}, 9, 9)",
                f"SELECT strata.outbox_pending({named(neighbour.id)}, {capability}, 9)",
            ):
                found = (await attempt(connection, statement)).sqlstate
                assert found == (FORBIDDEN if schema_tenant else BAD_CAPABILITY), statement
    async with admin_of(runtime, neighbour.placement.cell) as admin:
        assert await admin.fetchval("SELECT count(*) FROM strata.outbox WHERE tenant_id = $1", neighbour.id) == 1


async def test_an_event_is_the_entered_tenants_whatever_is_set(
    runtime: Runtime, tenant: TenantContext, neighbour: TenantContext
) -> None:
    async with inside(runtime, tenant) as connection:
        seal = await connection.fetchval("SELECT current_setting('backtrace_functions')")
        for forged in ("", "x", neighbour.id.hex, seal.replace(tenant.id.hex, neighbour.id.hex), seal):
            setting = f"SELECT set_config('backtrace_functions', '{forged}', true)"
            for told in (EMIT, "SELECT strata.epoch()"):
                assert (await attempt(connection, setting, told)).sqlstate == FORBIDDEN, forged
        for told in (EMIT, "SELECT strata.epoch()"):
            assert (await attempt(connection, "RESET ALL", told)).sqlstate == NOT_ENTERED
        await connection.execute(f"SELECT set_config('strata.emitting', 'forged', true); {EMIT}")
    async with admin_of(runtime, tenant.placement.cell) as admin:
        rows = await admin.fetch(
            "SELECT tenant_id, epoch FROM strata.outbox WHERE occurred_at > now() - interval '1 hour' AND tenant_id = $1",
            tenant.id,
        )
    assert rows
    assert {row["epoch"] for row in rows} == {tenant.placement.epoch}


async def test_outside_of_a_tenant_nothing_is_told(runtime: Runtime, tenant: TenantContext) -> None:
    async with app_login(runtime, tenant.placement.cell) as connection:
        await connection.execute("BEGIN")
        assert (await attempt(connection, EMIT)).sqlstate == NOT_ENTERED
