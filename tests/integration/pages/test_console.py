from __future__ import annotations

import secrets

import pytest

from strata.app import StrataApp
from strata.runtime import Runtime
from strata.tenancy.model import TenantStatus, Tier
from tests.builders.http import client_of, token_for, token_for_staff
from tests.builders.platform import Tenantry

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
