"""What pg_catalog says of every tenant table, on every tier: the walls stand everywhere, and nothing leads around them."""

from __future__ import annotations

import pytest

from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.platform import Tenantry, admin_of
from tests.builders.rows import tables_of


@pytest.fixture(scope="module", params=Tier)
async def tenant(request: pytest.FixtureRequest, tenant_on: Tenantry) -> TenantContext:
    return await tenant_on(Tier(request.param))


def role_of(runtime: Runtime, tenant: TenantContext) -> str:
    if tenant.placement.tier is Tier.SCHEMA:
        return tenant.placement.schema_name
    return f"{runtime.settings.role_prefix}_app"


async def test_every_relation_of_the_schema_is_a_tenant_table(runtime: Runtime, tenant: TenantContext) -> None:
    """No sequence, view, materialised view or table without a tenant."""
    schema = tenant.placement.schema_name
    async with admin_of(runtime, tenant.placement.cell) as admin:
        known = {table.name for table in await tables_of(admin, schema)}
        rows = await admin.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND NOT relispartition"
            " AND relkind NOT IN ('i', 'I', 't')",
            schema,
        )
    assert {row["relname"] for row in rows} == known
    assert len(known) >= 11


async def test_row_level_security_is_enabled_and_forced_by_one_policy(runtime: Runtime, tenant: TenantContext) -> None:
    schema = tenant.placement.schema_name
    wall = f"(tenant_id = ( SELECT strata.tenant('{schema}'::text) AS tenant))"
    async with admin_of(runtime, tenant.placement.cell) as admin:
        for row in await admin.fetch(
            "SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity, c.relispartition,"
            " (SELECT array_agg(ARRAY[p.polcmd::text, p.polpermissive::text, p.polroles::text,"
            "   pg_get_expr(p.polqual, c.oid), pg_get_expr(p.polwithcheck, c.oid)]) FROM pg_policy p WHERE p.polrelid = c.oid)"
            "   AS policies FROM pg_class c WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p')",
            schema,
        ):
            assert row["relrowsecurity"], row["relname"]
            assert row["relforcerowsecurity"], row["relname"]
            expected = None if row["relispartition"] else [["*", "true", "{0}", wall, wall]]
            assert row["policies"] == expected, row["relname"]


async def test_keys_begin_with_the_tenant(runtime: Runtime, tenant: TenantContext) -> None:
    """A unique index without it betrays, and a foreign key without it crosses."""
    async with admin_of(runtime, tenant.placement.cell) as admin:
        indexes = await admin.fetch(
            "SELECT i.indexrelid::regclass::text AS name, a.attname FROM pg_index i"
            " JOIN pg_class c ON c.oid = i.indrelid AND c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p')"
            " LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] WHERE i.indisunique",
            tenant.placement.schema_name,
        )
        keys = await admin.fetch(
            "SELECT k.conname AS name, a.attname, f.attname AS referred FROM pg_constraint k"
            " LEFT JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]"
            " LEFT JOIN pg_attribute f ON f.attrelid = k.confrelid AND f.attnum = k.confkey[1]"
            " WHERE k.contype = 'f' AND k.connamespace = $1::regnamespace",
            tenant.placement.schema_name,
        )
    assert len(indexes) >= 20
    assert len(keys) >= 8
    assert {(row["name"], row["attname"]) for row in indexes if row["attname"] != "tenant_id"} == set()
    assert {row["name"] for row in keys if (row["attname"], row["referred"]) != ("tenant_id", "tenant_id")} == set()


async def test_the_role_owns_nothing_and_has_dml_alone(runtime: Runtime, tenant: TenantContext) -> None:
    role = role_of(runtime, tenant)
    async with admin_of(runtime, tenant.placement.cell) as admin:
        assert (
            await admin.fetchval(
                "SELECT count(*) FROM pg_shdepend WHERE refobjid = $1::regrole AND deptype = 'o'", role
            )
            == 0
        )
        for row in await admin.fetch(
            "SELECT c.relname, c.relispartition, array_agg(DISTINCT x.privilege_type) AS granted,"
            " array_agg(DISTINCT x.grantee::regrole::text) AS grantees, bool_or(x.is_grantable) AS further"
            " FROM pg_class c LEFT JOIN LATERAL aclexplode(c.relacl) x ON x.grantee <> c.relowner"
            " WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') GROUP BY 1, 2",
            tenant.placement.schema_name,
        ):
            if row["relispartition"]:
                assert row["granted"] == [None], row["relname"]
                continue
            assert set(row["granted"]) <= {"SELECT", "INSERT", "UPDATE", "DELETE"}, row["relname"]
            assert {"SELECT", "INSERT"} <= set(row["granted"]), row["relname"]
            assert row["grantees"] == [role], row["relname"]
            assert not row["further"], row["relname"]


async def test_the_application_role_is_nobody(runtime: Runtime, tenant: TenantContext) -> None:
    async with admin_of(runtime, tenant.placement.cell) as admin:
        role = await admin.fetchrow("SELECT * FROM pg_roles WHERE rolname = $1", f"{runtime.settings.role_prefix}_app")
    assert role is not None
    assert role["rolcanlogin"]
    for right in ("rolsuper", "rolcreaterole", "rolcreatedb", "rolreplication", "rolbypassrls", "rolinherit"):
        assert not role[right], right


async def test_nothing_is_open_to_everybody(runtime: Runtime, tenant: TenantContext) -> None:
    """PUBLIC may use the schema `strata` and three functions in it; not connect, not make anything temporary or not."""
    async with admin_of(runtime, tenant.placement.cell) as admin:
        database = await admin.fetch(
            "SELECT x.privilege_type FROM pg_database d, aclexplode(d.datacl) x"
            " WHERE d.datname = current_database() AND x.grantee = 0"
        )
        schemas = await admin.fetch(
            "SELECT n.nspname, x.privilege_type FROM pg_namespace n, aclexplode(n.nspacl) x"
            " WHERE x.grantee = 0 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
        )
        languages = await admin.fetch(
            "SELECT lanname FROM pg_language WHERE has_language_privilege('public', oid, 'USAGE') AND lanpltrusted"
        )
    assert database == []
    assert [tuple(row) for row in schemas] == [("strata", "USAGE")]
    # A function in language sql cannot be made without a schema to make it in; code blocks come in plpgsql only.
    assert {row["lanname"] for row in languages} <= {"sql"}


async def test_schema_tenants_reach_their_schema_alone(runtime: Runtime, tenant: TenantContext) -> None:
    role = role_of(runtime, tenant)
    async with admin_of(runtime, tenant.placement.cell) as admin:
        usable = await admin.fetch(
            "SELECT nspname FROM pg_namespace WHERE has_schema_privilege($1, oid, 'USAGE') AND nspname !~ '^pg_'"
            " AND nspname <> 'information_schema'",
            role,
        )
        creatable = await admin.fetch(
            "SELECT nspname FROM pg_namespace WHERE has_schema_privilege($1, oid, 'CREATE')", role
        )
    assert {row["nspname"] for row in usable} == {"strata", tenant.placement.schema_name}
    assert creatable == []


async def test_functions_of_the_tenants_run_as_their_caller(runtime: Runtime, tenant: TenantContext) -> None:
    async with admin_of(runtime, tenant.placement.cell) as admin:
        rows = await admin.fetch(
            "SELECT proname FROM pg_proc WHERE pronamespace = $1::regnamespace AND (prosecdef OR proleakproof)",
            tenant.placement.schema_name,
        )
    assert rows == []
