from __future__ import annotations

import json

from strata.runtime import Runtime
from strata.tenancy.catalog.audit_chain import anchors_of
from strata.tenancy.model import Tier
from tests.builders.command import Command
from tests.builders.inventory import stocked
from tests.builders.platform import Tenantry, admin_of


async def test_an_audit_is_listed_exported_and_verified(strata: Command, runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SCHEMA)
    await stocked(runtime, context)
    listed = await strata.json("audit", "list", context.slug, "--limit", "2")
    assert [entry["action"] for entry in listed["items"]] == ["bin.create", "bin.create"]
    more = await strata.json("audit", "list", context.slug, "--limit", "2", "--cursor", listed["next_cursor"])
    assert [entry["action"] for entry in more["items"]] == ["zone.create", "warehouse.create"]
    said = await strata("audit", "export", context.slug)
    assert [json.loads(line)["sequence"] for line in said.out.splitlines()] == [1, 2, 3, 4]
    assert (await strata.json("audit", "verify", context.slug))["entries"] == 4
    assert [anchor.sequence for anchor in await anchors_of(runtime.catalog_engine, context.id)] == [4]
    async with admin_of(runtime, context.placement.cell) as admin, admin.transaction():
        await admin.execute("SET LOCAL session_replication_role = replica")
        await admin.execute(f'DELETE FROM "{context.placement.schema_name}".audit_entry WHERE sequence = 4')
    broken = await strata("audit", "verify", context.slug, "--json")
    assert broken.code == 1
    assert broken.error["code"] == "audit-broken"
    assert [(each["flaw"], each["sequence"]) for each in broken.error["findings"]] == [("missing", 4)]


async def test_the_staffs_audit_too(strata: Command, runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    await strata("tenant", "suspend", context.slug, "--reason", "unpaid")
    [entry] = (await strata.json("audit", "list", "--subject", context.slug, "--action", "tenant.suspended"))["items"]
    assert entry["authentication"] == "operating system"
    assert entry["source"]
    assert (await strata.json("audit", "verify"))["findings"] == []
    assert "tenant.suspended" in (await strata("audit", "export", "--format", "csv")).out
