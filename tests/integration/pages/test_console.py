from __future__ import annotations

import secrets

import pytest
from sqlalchemy import text

from strata.app import StrataApp
from strata.runtime import Runtime
from strata.tenancy.model import TenantStatus, Tier
from strata.tenancy.settings.conditions import setting_condition
from tests.builders.http import client_of, token_for, token_for_staff
from tests.builders.platform import Tenantry
from tests.builders.settings import settle

STAFF_ROUTES = ("/staff/v1/tenants", "/staff/v1/cells", "/staff/v1/servers", "/tenants", "/cells")


async def test_staff_make_find_and_suspend_a_tenant_over_the_api(runtime: Runtime, whole_app: StrataApp) -> None:
    slug = f"s{secrets.token_hex(5)}"
    new = {"slug": slug, "name": "Sorrel & Co", "tier": "schema"}
    async with client_of(whole_app, "console.localhost", token=token_for_staff(runtime.tokens)) as client:
        made = await client.post("/staff/v1/tenants", json=new)
        assert made.status_code == 201
        assert made.json()["tier"] == "schema"
        assert (await client.post("/staff/v1/tenants", json=new)).status_code == 200
        assert (await client.post("/staff/v1/tenants", json={**new, "tier": "shared"})).status_code == 409

        refused = await client.post(f"/staff/v1/tenants/{slug}/status", json={"status": "suspended"})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["path"] == "/reason"
        change = {"status": "suspended", "reason": "terms of use"}
        assert (await client.post(f"/staff/v1/tenants/{slug}/status", json=change)).json()["status"] == "suspended"
        assert (await client.get(f"/staff/v1/tenants/{slug}")).json()["status_reason"] == "terms of use"
        found = (await client.get("/staff/v1/tenants", params={"search": slug, "status": "suspended"})).json()
        assert [item["slug"] for item in found["items"]] == [slug]
        history = (await client.get(f"/staff/v1/tenants/{slug}/audit")).json()["items"]
        assert [entry["action"] for entry in history] == ["tenant.suspended", "tenant.create"]
        assert {entry["actor"] for entry in history} == {"staff:staff@tests"}
        assert (await client.get("/staff/v1/tenants/no-such-tenant")).status_code == 404


async def test_tenants_and_history_come_in_pages(runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry) -> None:
    stem = f"p{secrets.token_hex(4)}"
    slugs = [(await tenant_on(Tier.SHARED, slug=f"{stem}-{n}")).slug for n in range(3)]
    for reason in ("one", "two"):
        await runtime.directory.set_status(slugs[0], TenantStatus.READ_ONLY, reason, "tests")
    async with client_of(whole_app, "console.localhost", token=token_for_staff(runtime.tokens)) as client:
        for path, count in (("/staff/v1/tenants", 3), (f"/staff/v1/tenants/{slugs[0]}/audit", 3)):
            seen, cursor = [], None
            for _ in range(count):
                parameters = {"limit": "1", "search": stem} | ({"cursor": cursor} if cursor else {})
                page = (await client.get(path, params=parameters)).json()
                seen += [item.get("slug") or item["sequence"] for item in page["items"]]
                cursor = page["next_cursor"]
            assert cursor is None
            assert len(set(seen)) == count


async def test_tenants_are_found_by_a_setting(runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry) -> None:
    stem = f"p{secrets.token_hex(4)}"
    berlin, utc, other = [(await tenant_on(Tier.SHARED, slug=f"{stem}-{n}")).slug for n in range(3)]
    await settle(runtime, berlin, {"regional": {"time_zone": "Europe/Berlin", "currency": "EUR"}})
    await settle(runtime, other, {"regional": {"time_zone": "Europe/Berlin"}})
    async with client_of(whole_app, "console.localhost", token=token_for_staff(runtime.tokens)) as client:

        async def found(*where: str) -> set[str]:
            answer = await client.get("/staff/v1/tenants", params={"search": stem, "where": list(where)})
            return {each["slug"] for each in answer.json()["items"]}

        assert await found("settings.regional.time_zone=Europe/Berlin") == {berlin, other}
        assert await found("regional.time_zone=Europe/Berlin", "regional.currency=EUR") == {berlin}
        assert await found("regional.time_zone=UTC") == {utc}, "found by the default too"
        refused = await client.get("/staff/v1/tenants", params={"where": "regional.colour=red"})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid-input")

        page = (await client.get("/tenants", params={"q": stem, "where": "regional.currency=EUR"})).text
        assert (berlin in page, other in page) == (True, False)
        page = (await client.get("/tenants", params={"where": "nonsense"})).text
        assert "is no condition" in page
    condition = setting_condition(runtime.settings_book.model, "regional.time_zone=Europe/Berlin")
    assert "@>" in str(condition.sql().compile(runtime.catalog_engine.sync_engine))
    async with runtime.catalog_engine.begin() as connection:
        # So few tenants are read as a whole; what counts is that the index would serve.
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        contained = "EXPLAIN SELECT tenant_id FROM tenant_settings WHERE document @> CAST(:document AS jsonb)"
        plan = await connection.scalars(text(contained), {"document": '{"regional": {"time_zone": "Europe/Berlin"}}'})
        assert any("ix_tenant_settings_document" in line for line in plan)


async def test_cells_and_servers_are_listed_without_secrets(runtime: Runtime, whole_app: StrataApp) -> None:
    async with client_of(whole_app, "console.localhost", token=token_for_staff(runtime.tokens)) as client:
        cells = (await client.get("/staff/v1/cells")).json()["items"]
        servers = await client.get("/staff/v1/servers")
        page = await client.get("/cells", headers={"Accept": "text/html"})
    assert {"cell-1", "cell-2"} <= {cell["name"] for cell in cells}
    assert {server["name"] for server in servers.json()["items"]} == {"one", "two"}
    assert "password" not in servers.text
    assert "cell-1" in page.text


@pytest.mark.parametrize("path", STAFF_ROUTES)
async def test_staff_routes_are_for_staff_on_their_own_host(
    runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry, path: str
) -> None:
    tenant = await tenant_on(Tier.SHARED)
    as_tenant, as_staff = token_for(runtime.tokens, tenant), token_for_staff(runtime.tokens)
    cases = (
        (f"{tenant.slug}.localhost", as_tenant, 404),
        (f"{tenant.slug}.localhost", as_staff, 403),
        ("api.localhost", as_tenant, 404),
        ("console.localhost", as_tenant, 403),
        ("console.localhost", None, 401),
        ("console.localhost", as_staff, 200),
    )
    for host, token, status in cases:
        async with client_of(whole_app, host, token=token) as client:
            assert (await client.get(path)).status_code == status, (host, status)
