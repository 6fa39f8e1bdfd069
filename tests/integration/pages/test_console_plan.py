"""Plans and entitlements for staff: the API and the page."""

from __future__ import annotations

from strata.app import StrataApp
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.http import client_of, token_for_staff
from tests.builders.platform import Tenantry

HTML = {"Accept": "text/html"}


async def test_the_api_foretells_changes_grants_and_ends(
    runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry
) -> None:
    tenant = await tenant_on(Tier.SHARED, plan="starter")
    base = f"/staff/v1/tenants/{tenant.slug}"
    async with client_of(whole_app, "console.localhost", token=token_for_staff(runtime.tokens)) as client:
        grant = {"kind": "limit", "name": "users", "amount": 99, "reason": "contract"}
        assert (await client.post(f"{base}/entitlements", json=grant)).status_code == 200
        preview = (await client.post(f"{base}/plan/preview", json={"plan": "free"})).json()
        assert preview["features_lost"] == ["transfers"]
        assert preview["kept"] == ["limit users = 99"]
        assert (await client.get(f"{base}/entitlements")).json()["plan"] == "starter"
        assert (await client.post(f"{base}/plan", json={"plan": "free", "reason": "asked"})).json() == preview
        found = (await client.get(f"{base}/entitlements")).json()
        assert found["plan"] == "free"
        users = next(each for each in found["entitled"]["limits"] if each["name"] == "users")
        assert users == {"name": "users", "amount": 99, "sources": ["plan free v1", "override"]}
        ended = await client.delete(f"{base}/entitlements/limit/users", params={"reason": "over"})
        assert ended.json()["grants"] == []
        for path, body, status in (
            ("plan", {"plan": "platinum"}, 422),
            ("plan", {"plan": "free", "version": 3}, 422),
            ("entitlements", {**grant, "amount": -1}, 400),
            ("entitlements", {**grant, "reason": ""}, 400),
            ("entitlements", {**grant, "expires_at": "2020-01-01T00:00:00Z"}, 422),
        ):
            refused = await client.post(f"{base}/{path}", json=body)
            assert refused.status_code in {status, 422}, (path, body, refused.text)
        assert (await client.delete(f"{base}/entitlements/limit/users", params={"reason": "x"})).status_code == 404


async def test_the_page_shows_a_change_before_it_is_made(
    runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry
) -> None:
    tenant = await tenant_on(Tier.SHARED, plan="starter")
    page = f"/tenants/{tenant.slug}/plan"
    async with client_of(whole_app, "console.localhost", token=token_for_staff(runtime.tokens)) as client:
        shown = await client.get(page, params={"to": "free"}, headers=HTML)
        assert "starter v1 → free v1" in shown.text
        assert (await client.get(page, params={"to": "platinum"}, headers=HTML)).status_code == 422
        assert (await client.post(page, data={"plan": "free"}, headers=HTML)).status_code == 303
        bad = await client.post(f"/tenants/{tenant.slug}/grants", data={"what": "limit skus"}, headers=HTML)
        assert bad.status_code == 422
    assert (await runtime.contexts.fresh(tenant.id)).plan == "free"
