"""SECURITY DEFINER functions run as the cell's owner: nothing that a caller can set or make may change what they do."""

from __future__ import annotations

import asyncpg
import pytest

from strata.runtime import Runtime
from strata.tenancy.cell.door import Isolation, entry_message
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.intruder import FORBIDDEN, NOT_ENTERED, app_login, attempt, inside
from tests.builders.platform import FIRST_CELL, Tenantry, admin_of

READ = "SELECT count(*) FROM product"
RELAYS = {
    "strata.outbox_waiting(bytea,uuid,integer)",
    "strata.outbox_take(uuid,bytea,bigint,bigint,integer,bigint)",
    "strata.outbox_acknowledge(uuid,bytea,bigint,bigint)",
    "strata.outbox_pending(uuid,bytea,bigint)",
}
"""Useless without a capability for the outbox, which no transaction of a tenant has (test_outbox_walls.py)."""


@pytest.fixture(scope="module", params=Tier)
async def tenant(request: pytest.FixtureRequest, runtime: Runtime, tenant_on: Tenantry) -> TenantContext:
    context = await tenant_on(Tier(request.param))
    async with inside(runtime, context) as connection:
        await connection.execute("INSERT INTO product (sku, name) VALUES ('mine', 'mine')")
    return context


async def test_every_definer_function_pins_its_search_path(runtime: Runtime, tenant: TenantContext) -> None:
    """With pg_temp last: first, it would be searched before pg_catalog for types and tables."""
    async with admin_of(runtime, tenant.placement.cell) as admin:
        definers = await admin.fetch(
            "SELECT p.oid::regprocedure::text AS name, p.proconfig FROM pg_proc p"
            " WHERE p.prosecdef AND p.pronamespace <> 'pg_catalog'::regnamespace"
        )
    assert {"strata.enter_tenant(uuid,bigint,bytea)", "strata.emit(text,integer,jsonb)"} <= {
        row["name"] for row in definers
    }
    for row in definers:
        assert row["proconfig"] == ["search_path=pg_catalog, pg_temp"], row["name"]


async def test_what_a_tenant_may_execute_is_known(runtime: Runtime, tenant: TenantContext) -> None:
    """In `strata` these functions and no more; a new one has to be thought about here."""
    role = (
        tenant.placement.schema_name if tenant.placement.tier is Tier.SCHEMA else f"{runtime.settings.role_prefix}_app"
    )
    async with admin_of(runtime, tenant.placement.cell) as admin:
        rows = await admin.fetch(
            "SELECT p.oid::regprocedure::text AS name FROM pg_proc p WHERE p.pronamespace = 'strata'::regnamespace"
            " AND has_function_privilege($1, p.oid, 'EXECUTE')",
            role,
        )
    assert {row["name"] for row in rows} == {
        "strata.uuidv7()",
        "strata.enter(uuid,bigint,bytea)",
        "strata.enter_tenant(uuid,bigint,bytea)",
        "strata.tenant(text)",
        "strata.refuse_unentered()",
        "strata.emit(text,integer,jsonb)",
        "strata.epoch()",
        "strata.enter_standby(uuid,bigint,bytea,uuid)",
        "strata.require_replayed(pg_lsn)",
        "strata.tell_position()",
    } | (RELAYS if tenant.placement.tier is not Tier.SCHEMA else set())


# With TEMPORARY given back to the application by mistake, what it can make shadows nothing within the functions.
SHADOWS = [
    "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_temp.spy())",
    "CREATE DOMAIN pg_temp.bytea AS pg_catalog.bytea CHECK (pg_temp.spy())",
    "CREATE DOMAIN pg_temp.uuid AS pg_catalog.uuid CHECK (pg_temp.spy())",
    "CREATE DOMAIN pg_temp.name AS pg_catalog.name CHECK (pg_temp.spy())",
    "CREATE TEMP TABLE secret AS SELECT '\\x00'::bytea AS ipad, '\\x00'::bytea AS opad",
    "CREATE TEMP TABLE fence AS SELECT 1 AS epoch",
    "CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT '\\x00'::bytea $$",
    "CREATE FUNCTION pg_temp.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$",
    "CREATE OPERATOR pg_temp.|| (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = pg_temp.join_bytes)",
    "CREATE OPERATOR pg_temp.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.never)",
]


@pytest.mark.parametrize("shadow", SHADOWS)
@pytest.mark.parametrize("path", ["pg_temp, pg_catalog", "pg_temp", "public, pg_temp, pg_catalog"])
async def test_temporary_objects_shadow_nothing(
    runtime: Runtime, tenant: TenantContext, shadow: str, path: str
) -> None:
    """The second wall: the first, that there are no temporary objects, is taken down for the test."""
    database = (await runtime.registry.cell(tenant.placement.cell)).url.database
    role = f"{runtime.settings.role_prefix}_app"
    async with admin_of(runtime, tenant.placement.cell) as admin:
        await admin.execute(f'GRANT TEMPORARY ON DATABASE "{database}" TO {role}')
        # What the application creates is refused by the event trigger too; the superuser creates it in its stead.
        await admin.execute("ALTER EVENT TRIGGER strata_refuse_ddl DISABLE")
        try:
            async with app_login(runtime, tenant.placement.cell) as connection:
                await connection.execute(
                    "CREATE TEMP TABLE seen (who text);"
                    "CREATE FUNCTION pg_temp.spy() RETURNS boolean LANGUAGE sql AS"
                    " $$ INSERT INTO seen VALUES (current_user); SELECT true $$;"
                    "CREATE FUNCTION pg_temp.join_bytes(bytea, bytea) RETURNS bytea LANGUAGE sql AS"
                    " $$ INSERT INTO seen VALUES (current_user); SELECT $1 $$;"
                    "CREATE FUNCTION pg_temp.never(text, text) RETURNS boolean LANGUAGE sql AS"
                    " $$ INSERT INTO seen VALUES (current_user); SELECT false $$"
                )
                await connection.execute(shadow)
                cell = await runtime.registry.cell(tenant.placement.cell)
                message = entry_message(
                    cell.secret, tenant.id, tenant.placement, Isolation.READ_COMMITTED, read_only=False
                )
                await connection.execute(f"SET search_path = {path}")
                # Entered with the caller's path still in force, then everything again with it set inside.
                await connection.execute(message)
                await connection.execute(f"SET LOCAL search_path = {tenant.placement.schema_name}, {path}")
                assert await connection.fetchval(f"SELECT count(*) FROM {tenant.placement.schema_name}.product") == 1
                await connection.execute("RESET ROLE")
                assert await connection.fetchval("SELECT count(*) FROM pg_temp.seen WHERE who <> session_user") == 0
        finally:
            await admin.execute("ALTER EVENT TRIGGER strata_refuse_ddl ENABLE")
            await admin.execute(f'REVOKE TEMPORARY ON DATABASE "{database}" FROM {role}')


async def test_without_the_pinned_path_the_secret_would_leak(runtime: Runtime, tenant_on: Tenantry) -> None:
    """The control, and the reason: an unpinned function of the owner runs the caller's code as the owner."""
    database = (await runtime.registry.cell(FIRST_CELL)).url.database
    role = f"{runtime.settings.role_prefix}_app"
    async with admin_of(runtime, FIRST_CELL) as admin:
        await admin.execute(f'GRANT TEMPORARY ON DATABASE "{database}" TO {role}')
        await admin.execute("ALTER EVENT TRIGGER strata_refuse_ddl DISABLE")
        await admin.execute(
            "CREATE FUNCTION strata.unpinned() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS"
            " $$ DECLARE v text := 'x'; BEGIN RETURN v; END $$; GRANT EXECUTE ON FUNCTION strata.unpinned() TO PUBLIC"
        )
        try:
            async with app_login(runtime, FIRST_CELL) as connection:
                await connection.execute(
                    "CREATE FUNCTION pg_temp.spy() RETURNS boolean LANGUAGE sql AS"
                    " $$ SELECT set_config('spy.secret', (SELECT encode(ipad, 'hex') FROM strata.secret), false) > '' $$;"
                    "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_temp.spy());"
                    "SELECT strata.unpinned()"
                )
                stolen = await connection.fetchval("SELECT current_setting('spy.secret')")
            assert stolen == await admin.fetchval("SELECT encode(ipad, 'hex') FROM strata.secret")
        finally:
            await admin.execute("DROP FUNCTION strata.unpinned()")
            await admin.execute("ALTER EVENT TRIGGER strata_refuse_ddl ENABLE")
            await admin.execute(f'REVOKE TEMPORARY ON DATABASE "{database}" FROM {role}')


async def test_the_search_path_of_the_caller_does_not_matter(runtime: Runtime, tenant: TenantContext) -> None:
    schema = tenant.placement.schema_name
    async with inside(runtime, tenant) as connection:
        for path in ("''", "strata", "pg_temp, strata, shared", '"$user", public', "nowhere"):
            found = await attempt(
                connection, f"SET LOCAL search_path = {path}", f"SELECT count(*) FROM {schema}.product"
            )
            assert found.value == 1, path


async def test_another_tenants_role_cannot_be_used_without_its_seal(
    runtime: Runtime, tenant: TenantContext, tenant_on: Tenantry
) -> None:
    """Any transaction may take the role of a schema tenant of the cell on: the seal keeps its rows all the same."""
    neighbour = await tenant_on(Tier.SCHEMA)
    async with inside(runtime, neighbour) as connection:
        await connection.execute("INSERT INTO product (sku, name) VALUES ('theirs', 'x')")
    schema = neighbour.placement.schema_name
    async with inside(runtime, tenant) as connection:
        outcome = await attempt(connection, f"SELECT * FROM {schema}.product")
        here = tenant.placement.cell == neighbour.placement.cell
        assert outcome.sqlstate == (FORBIDDEN if here else "42P01")
        for take in (f"SET LOCAL ROLE {schema}", f"SELECT set_config('role', '{schema}', true)"):
            for statement in (
                f"SELECT * FROM {schema}.product",
                f"INSERT INTO {schema}.product (sku, name) VALUES ('x', 'x')",
                f"INSERT INTO {schema}.product (tenant_id, sku, name) VALUES ('{neighbour.id}', 'x', 'x')",
                f"UPDATE {schema}.product SET name = 'mine'",
                f"DELETE FROM {schema}.product",
            ):
                outcome = await attempt(connection, take, statement)
                # From a schema of its own the attacker is another role, which is not a member of that one.
                assert outcome.sqlstate in ({NOT_ENTERED, FORBIDDEN} if here else {"42P01", "22023"}), statement


async def test_roles_grant_nothing_by_themselves(runtime: Runtime, tenant_on: Tenantry) -> None:
    """The application has no right of a schema tenant's until it takes the role on; tenants' roles cannot log in."""
    context = await tenant_on(Tier.SCHEMA)
    schema = context.placement.schema_name
    async with app_login(runtime, context.placement.cell) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch(f"SELECT * FROM {schema}.product")
    async with admin_of(runtime, context.placement.cell) as admin:
        role = await admin.fetchrow("SELECT * FROM pg_roles WHERE rolname = $1", schema)
        grant = await admin.fetchrow(
            "SELECT inherit_option, set_option, admin_option FROM pg_auth_members WHERE roleid = $1::regrole", schema
        )
    assert role is not None
    assert grant is not None
    for right in (
        "rolsuper",
        "rolcreaterole",
        "rolcreatedb",
        "rolcanlogin",
        "rolreplication",
        "rolbypassrls",
        "rolinherit",
    ):
        assert not role[right], right
    assert (grant["inherit_option"], grant["set_option"], grant["admin_option"]) == (False, True, False)
