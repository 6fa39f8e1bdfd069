"""Feature flags for staff: the API and the pages; and what the product does with them."""

from __future__ import annotations

import secrets

import pytest

from strata.app import StrataApp
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.http import client_of, token_for, token_for_staff
from tests.builders.platform import Tenantry

HTML = {"Accept": "text/html"}


@pytest.fixture
def key() -> str:
    return f"p{secrets.token_hex(5)}"


async def test_the_api_makes_tries_changes_explains_and_takes_back(
    runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry, key: str
) -> None:
    tenant = await tenant_on(Tier.SHARED)
    base = f"/staff/v1/flags/{key}"
    async with client_of(whole_app, "console.localhost", token=token_for_staff(runtime.tokens)) as client:
        made = await client.put(base, json={"description": "labels"})
        assert (made.status_code, made.headers["etag"]) == (200, '"v1"')
        seed = made.json()["flag"]["seed"]
        tried = (await client.post(f"{base}/dry-run", json={"rollout": 10_000})).json()
        assert tenant.slug in {each["tenant"] for each in tried["changed"]}
        changed = await client.put(base, json={"rollout": 10_000}, headers={"If-Match": '"v1"'})
        assert (changed.json()["flag"]["seed"], changed.json()["version"]) == (seed, 2)
        assert (await client.put(base, json={}, headers={"If-Match": '"v1"'})).status_code == 412

        async def evaluated() -> tuple[str, str]:
            found = (await client.get(f"{base}/evaluation", params={"tenant": tenant.slug})).json()
            return found["variant"], found["reason"]

        assert await evaluated() == ("on", "rollout")
        override = {"variant": "off", "reason": "asked for it"}
        assert (await client.put(f"{base}/overrides/{tenant.slug}", json=override)).status_code == 204
        assert await evaluated() == ("off", "override")
        assert [each["tenant"] for each in (await client.get(f"{base}/overrides")).json()["items"]] == [tenant.slug]
        assert (await client.delete(f"{base}/overrides/{tenant.slug}")).status_code == 204
        assert (await client.post(f"{base}/kill", json={"killed": True, "reason": "smoke"})).json()["flag"]["killed"]
        assert await evaluated() == ("off", "killed")
        assert (await client.post(f"{base}/undo/dry-run")).json()["effects"][0]["changed"] >= 1
        assert (await client.post(f"{base}/undo", json={})).json()["undoes"]
        assert await evaluated() == ("on", "rollout")
        history = (await client.get(f"{base}/history", params={"limit": 3})).json()
        assert [each["actor"] for each in history["items"]] == ["staff:staff@tests"] * 3
        assert history["next_cursor"]

        segment = f"/staff/v1/flag-segments/{key}-beta"
        assert (await client.put(segment, json={"tenants": [str(tenant.id)]})).status_code == 200
        rule = {"name": "beta", "when": [{"operator": "in-segment", "values": [f"{key}-beta"]}], "serve": "off"}
        assert (await client.put(base, json={"rollout": 10_000, "rules": [rule]})).status_code == 200
        assert await evaluated() == ("off", "rule")
        assert (await client.post(f"{segment}/dry-run", json={})).json()["effects"][0]["changed"] == 1
        assert (await client.delete(segment)).status_code == 409
        assert (await client.get("/staff/v1/stale-flags", params={"days": 1})).status_code == 200
        for path, body, status in (
            ("", {"rollout": 10_001}, 422),
            ("", {"key": "another"}, 422),
            ("", {"plan_minimum": "platinum"}, 422),
            ("", {"colour": "blue"}, 422),
            ("/dry-run", {"prerequisites": [{"flag": key, "variants": ["on"]}]}, 409),
        ):
            call = client.put if not path else client.post
            refused = await call(f"{base}{path}", json=body)
            assert refused.status_code == status, (path, body, refused.text)
        assert (await client.delete(base)).status_code == 204
        assert (await client.get(base)).status_code == 404


async def test_pages_are_for_those_who_may(
    runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry, key: str
) -> None:
    tenant = await tenant_on(Tier.SHARED)
    async with client_of(whole_app, "console.localhost", token=token_for_staff(runtime.tokens)) as client:
        assert (await client.post("/flags", data={"key": key}, headers=HTML)).status_code == 303
        assert (await client.post("/flags", data={"key": key}, headers=HTML)).status_code == 422
        for path in ("/flags", f"/flags/{key}", f"/tenants/{tenant.slug}/flags"):
            assert key in (await client.get(path, headers=HTML)).text, path
        bad = {"document": "{", "rollout": "5"}
        assert (await client.post(f"/flags/{key}", data=bad, headers=HTML)).status_code == 422
        assert (await client.post(f"/flags/{key}/undo", headers=HTML)).headers["location"] == "/flags"
    async with client_of(whole_app, f"{tenant.slug}.localhost", token=token_for(runtime.tokens, tenant)) as client:
        assert (await client.get("/flags")).status_code == 404
        assert (await client.get("/staff/v1/flags")).status_code == 404


async def test_a_tenant_sees_its_plan_and_what_is_in_use(
    runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry
) -> None:
    tenant = await tenant_on(Tier.SCHEMA, plan="business")
    async with client_of(whole_app, f"{tenant.slug}.localhost", token=token_for(runtime.tokens, tenant)) as client:
        await client.post("/api/v1/products", json={"sku": "A", "name": "A"})
        found = (await client.get("/api/v1/plan")).json()
        skus = next(each for each in found["limits"] if each["name"] == "skus")
        assert skus == {"name": "skus", "amount": 200_000, "used": 1, "sources": ["plan business v1"]}
        assert "Plan business" in (await client.get("/account/plan", headers=HTML)).text
        assert (await client.get("/account", headers=HTML)).headers["location"] == "/account/settings"
