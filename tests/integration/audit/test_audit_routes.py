"""What is done through the API is in the tenant's audit, for its administrators to read, to keep and to check."""

from __future__ import annotations

import csv
import io
import json

import pytest

from strata.app import StrataApp, create_app
from strata.identity.roles import Role
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.http import client_of, token_for, token_for_staff
from tests.builders.inventory import api_client, stocked
from tests.builders.platform import Tenantry, second_process

AUDIT = "/api/v1/audit"


@pytest.fixture(scope="module")
def app(runtime: Runtime) -> StrataApp:
    return create_app(runtime)


@pytest.mark.parametrize("tier", Tier)
async def test_a_change_says_who_what_when_from_where_and_how(
    runtime: Runtime, app: StrataApp, tenant_on: Tenantry, tier: Tier
) -> None:
    context = await tenant_on(tier)
    token = token_for(runtime.tokens, context)
    async with client_of(app, f"{context.slug}.localhost", token=token, peer="192.0.2.9") as api:
        made = (await api.post("/api/v1/products", json={"sku": "MUG", "name": "Mug"})).json()
        await api.patch(f"/api/v1/products/{made['id']}", json={"name": "Cup", "unit": "each"})
        changed = (await api.get(AUDIT, params={"action": "product.change"})).json()["items"]
        assert len(changed) == 1
        [entry] = changed
        assert (entry["sequence"], entry["actor"], entry["subject"], entry["source"]) == (
            2,
            "tester",
            "MUG",
            "192.0.2.9",
        )
        assert entry["detail"]["changes"] == {"name": {"from": "Mug", "to": "Cup"}}
        claims = await runtime.tokens.verify(token.encode())
        assert entry["authentication"] == f"token {claims.jti}"
        assert entry["request"]
        await api.delete(f"/api/v1/products/{made['id']}")
        everything = [item["action"] for item in (await api.get(AUDIT)).json()["items"]]
        assert everything == ["product.delete", "product.change", "product.create"]


async def test_the_peer_of_a_trusted_proxy_is_the_source(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    http = runtime.settings.http.model_copy(update={"trusted_proxies": ("10.0.0.0/8",)})
    async with second_process(runtime, http=http) as other:
        host, token = f"{context.slug}.localhost", token_for(runtime.tokens, context)
        for peer, forwarded, source in (
            ("10.0.0.1", "203.0.113.5, 198.51.100.7, 10.0.0.2", "198.51.100.7"),
            ("192.0.2.1", "203.0.113.5", "192.0.2.1"),
        ):
            async with client_of(create_app(other), host, token=token, peer=peer) as api:
                headers = {"X-Forwarded-For": forwarded}
                await api.post("/api/v1/products", json={"sku": source, "name": "x"}, headers=headers)
                [entry] = (await api.get(AUDIT, params={"subject": source})).json()["items"]
                assert entry["source"] == source


async def test_it_comes_in_pages_as_files_and_with_a_verdict(
    runtime: Runtime, app: StrataApp, tenant_on: Tenantry
) -> None:
    context = await tenant_on(Tier.SCHEMA)
    async with api_client(app, runtime, context) as api:
        for number in range(5):
            await api.post("/api/v1/products", json={"sku": f"S-{number}", "name": "=1+1"})
        seen, cursor = [], None
        while True:
            page = (await api.get(AUDIT, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
            seen += [item["sequence"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == [5, 4, 3, 2, 1]
        lines = (await api.get(f"{AUDIT}/export")).text.splitlines()
        assert [json.loads(line)["sequence"] for line in lines] == [1, 2, 3, 4, 5]
        table = await api.get(f"{AUDIT}/export", params={"format": "csv"})
        assert table.headers["content-disposition"] == f'attachment; filename="audit-{context.slug}.csv"'
        rows = list(csv.DictReader(io.StringIO(table.text)))
        assert [row["subject"] for row in rows] == [f"S-{number}" for number in range(5)]
        assert (await api.get(f"{AUDIT}/verification")).json()["findings"] == []
        assert (await api.get(AUDIT, params={"colour": "red"})).status_code == 400


async def test_only_administrators_and_staff_read_it(runtime: Runtime, app: StrataApp, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    await stocked(runtime, context)
    async with api_client(app, runtime, context, Role.OPERATOR) as api:
        for path in (AUDIT, f"{AUDIT}/export", f"{AUDIT}/verification", "/account/audit"):
            assert (await api.get(path)).status_code == 403
    async with client_of(app, "console.localhost", token=token_for_staff(runtime.tokens)) as staff:
        activity = (await staff.get(f"/staff/v1/tenants/{context.slug}/activity")).json()["items"]
        assert {"warehouse.create", "zone.create", "bin.create"} == {item["action"] for item in activity}
        sound = (await staff.get(f"/staff/v1/tenants/{context.slug}/activity/verification")).json()
        assert (sound["entries"], sound["findings"]) == (4, [])
        own = (await staff.get("/staff/v1/audit", params={"subject": context.slug})).json()["items"]
        assert [item["action"] for item in own] == ["tenant.create"]
        await staff.post(f"/staff/v1/tenants/{context.slug}/status", json={"status": "read-only", "reason": "x"})
        [newest] = (await staff.get("/staff/v1/audit", params={"limit": 1, "subject": context.slug})).json()["items"]
        assert (newest["action"], newest["source"]) == ("tenant.read-only", "127.0.0.1")
        assert newest["authentication"].startswith("token ")
        page = await staff.get("/audit", headers={"Accept": "text/html"})
        assert "tenant.read-only" in page.text
        page = await staff.get(f"/tenants/{context.slug}/activity", headers={"Accept": "text/html"})
        assert "bin.create" in page.text
