"""The doctor finds nothing wrong with what provisioning makes, and names what a hand has spoilt."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from strata.platform.database.names import quoted
from strata.runtime import Runtime
from strata.tenancy.cell.inspection import lockdown_gaps, role_weaknesses, table_weaknesses
from strata.tenancy.model import Tier
from tests.builders.command import Command
from tests.builders.jobs import working
from tests.builders.platform import Platform, Tenantry, admin_of


async def verdicts(strata: Command) -> dict[str, dict[str, Any]]:
    said = await strata("doctor", "--json")
    checks = {check["name"]: check for check in said.document["checks"]}
    assert said.document["healthy"] is (said.code == 0)
    return checks


async def test_a_fresh_platform_is_healthy(strata: Command, tenant_on: Tenantry) -> None:
    for tier in Tier:
        await tenant_on(tier)
    checks = await verdicts(strata)
    # Other tests leave half-made tenants behind, and no worker runs here.
    of_others = {"half-made tenants", "workers"}
    assert {check["verdict"] for name, check in checks.items() if name not in of_others} == {"ok"}
    assert {"python", "packages", "settings", "key", "redis", "catalog", "clock", "server one", "cell cell-1"} <= set(
        checks
    )
    said = await strata("doctor")
    assert said.code == 0
    assert "✓" in said.out


async def test_a_worker_is_missed(strata: Command, runtime: Runtime) -> None:
    """One that stops in order takes itself off the list; other tests kill theirs."""
    async with runtime.catalog_engine.begin() as connection:
        await connection.execute(text("DELETE FROM jobs.procrastinate_workers"))
    assert (await verdicts(strata))["workers"]["verdict"] == "warning"
    async with working(runtime):
        assert (await verdicts(strata))["workers"]["verdict"] == "ok"


SPOILT = [
    ("ALTER TABLE {schema}.product DISABLE ROW LEVEL SECURITY", "row-level security off"),
    ("ALTER TABLE {schema}.product NO FORCE ROW LEVEL SECURITY", "does not force"),
    ("DROP POLICY tenant_wall ON {schema}.product", "lacks the policy"),
    ("ALTER POLICY tenant_wall ON {schema}.product USING (true)", "altered"),
    ("CREATE POLICY hole ON {schema}.product USING (true)", "beside tenant_wall (hole)"),
    ("GRANT SELECT ON {schema}.product TO PUBLIC", "granted to PUBLIC"),
    ("GRANT TRUNCATE ON {schema}.product TO {app}", "TRUNCATE"),
    ("GRANT SELECT ON {schema}.stock_ledger_p0 TO {app}", "granted to"),
    ("CREATE UNIQUE INDEX one_sku ON {schema}.product (sku)", "unique across tenants"),
    ("CREATE TABLE {schema}.loose (id uuid PRIMARY KEY)", "another primary key"),
    ("CREATE VIEW {schema}.peep AS SELECT * FROM {schema}.product", "runs as its owner"),
]


@pytest.mark.parametrize(("spoil", "found"), SPOILT)
async def test_a_spoilt_table_is_named(
    runtime: Runtime, platform: Platform, tenant_on: Tenantry, spoil: str, found: str
) -> None:
    context = await tenant_on(Tier.SHARED)
    statement = spoil.format(schema=quoted(context.placement.schema_name), app=quoted(platform.app_role))
    async with admin_of(runtime, context.placement.cell) as admin:
        assert await table_weaknesses(admin) == []
        transaction = admin.transaction()
        await transaction.start()
        await admin.execute(statement)
        weaknesses = await table_weaknesses(admin)
        await transaction.rollback()
    assert any(found in str(weakness) for weakness in weaknesses), weaknesses


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        ("GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO PUBLIC", "pg_advisory_lock(bigint)"),
        ("GRANT EXECUTE ON FUNCTION pg_stat_get_activity(integer) TO {app}", "pg_stat_get_activity"),
        ("GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC", "plpgsql"),
        ("GRANT USAGE ON SCHEMA public TO PUBLIC", "schema public"),
        ("GRANT SELECT ON strata.secret TO {app}", "strata.secret"),
        ("GRANT SET ON PARAMETER backtrace_functions TO {app}", "backtrace_functions"),
        ("ALTER PROCEDURE strata.enter_tenant(uuid, bigint, bytea) RESET search_path", "strata.enter_tenant"),
    ],
)
async def test_an_opened_lockdown_is_named(runtime: Runtime, platform: Platform, spoil: str, found: str) -> None:
    async with admin_of(runtime, "cell-1") as admin:
        assert await lockdown_gaps(admin, platform.app_role) == []
        transaction = admin.transaction()
        await transaction.start()
        await admin.execute(spoil.format(app=quoted(platform.app_role)))
        gaps = await lockdown_gaps(admin, platform.app_role)
        await transaction.rollback()
    assert any(found in str(gap) for gap in gaps), gaps


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        ("ALTER ROLE {app} BYPASSRLS", "BYPASSRLS"),
        ("ALTER ROLE {app} SUPERUSER", "SUPERUSER"),
        ("CREATE TABLE owned (); ALTER TABLE owned OWNER TO {app}", "owns 1 object"),
        ("GRANT pg_read_all_data TO {app}", "pg_read_all_data"),
    ],
)
async def test_a_role_with_too_much_is_named(runtime: Runtime, platform: Platform, spoil: str, found: str) -> None:
    async with admin_of(runtime, "cell-1") as admin:
        assert await role_weaknesses(admin, platform.app_role) == []
        transaction = admin.transaction()
        await transaction.start()
        await admin.execute(spoil.format(app=quoted(platform.app_role)))
        weaknesses = await role_weaknesses(admin, platform.app_role)
        await transaction.rollback()
    assert any(found in str(weakness) for weakness in weaknesses), weaknesses


async def test_what_is_spoilt_fails_the_whole(strata: Command, runtime: Runtime) -> None:
    """A cell of its own is too dear for this: the secret is put back at once."""
    async with admin_of(runtime, "cell-2") as admin:
        [secret] = await admin.fetch("SELECT ipad, opad FROM strata.secret")
        await admin.execute("UPDATE strata.secret SET ipad = $1, opad = $1", bytes(64))
        try:
            checks = await verdicts(strata)
        finally:
            await admin.execute("UPDATE strata.secret SET ipad = $1, opad = $2", secret["ipad"], secret["opad"])
    assert checks["cell cell-2"]["verdict"] == "failure"
    assert "secret" in checks["cell cell-2"]["found"]
    assert checks["cell cell-1"]["verdict"] == "ok"


async def test_each_missing_thing_is_told_with_what_to_do(strata: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATA_REDIS_URL", "redis://127.0.0.1:1/0")
    assert (await verdicts(strata))["redis"]["verdict"] == "warning"
    monkeypatch.setenv("STRATA_DATABASE_URL", "postgresql://a:b@127.0.0.1:1/strata")
    checks = await verdicts(strata)
    assert checks["catalog"]["verdict"] == "failure"
    assert checks["catalog"]["todo"]
    monkeypatch.setenv("STRATA_HTTP__PORT", "seventy")
    assert "STRATA_HTTP__PORT" in (await verdicts(strata))["settings"]["todo"]
