"""Whatever surrounds a tenant and is changed stands in an audit: the staff's acts in the catalog's, its own in its own."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from strata.app import StrataApp, create_app
from strata.identity.roles import Role
from strata.identity.tokens import tenant_token
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.http import client_of, token_for, token_for_staff
from tests.builders.inventory import stocked
from tests.builders.neighbours import noisy
from tests.builders.platform import Tenantry

Step = tuple[str, str, Any, list[str]]


@pytest.fixture
def app(runtime: Runtime) -> StrataApp:
    return create_app(runtime)


def steps_of_staff(slug: str, flag: str, advice: dict[str, Any]) -> list[Step]:
    """Method, address, document, and what must newly stand in the audit."""
    tenant, of_flag = f"/staff/v1/tenants/{slug}", f"/staff/v1/flags/{flag}"
    segment = f"/staff/v1/flag-segments/{flag}"
    limit = {"kind": "limit", "name": "users", "amount": 9, "reason": "contract 7"}
    return [
        ("POST", f"{tenant}/plan", {"plan": "starter"}, ["tenant.plan"]),
        ("POST", f"{tenant}/entitlements", limit, ["entitlement.grant"]),
        ("DELETE", f"{tenant}/entitlements/limit/users?reason=over", None, ["entitlement.revoke"]),
        ("PUT", of_flag, {"rollout": 100}, ["flag.put"]),
        ("POST", f"{of_flag}/kill", {"killed": True}, ["flag.put"]),
        ("POST", f"{of_flag}/undo", {}, ["flag.undo"]),
        ("PUT", f"{of_flag}/overrides/{slug}", {"variant": "on", "reason": "pilot"}, ["flag-override.put"]),
        ("DELETE", f"{of_flag}/overrides/{slug}", None, ["flag-override.delete"]),
        ("PUT", segment, {"tenants": []}, ["flag-segment.put"]),
        ("DELETE", segment, None, ["flag-segment.delete"]),
        ("DELETE", of_flag, None, ["flag.delete"]),
        ("PATCH", f"{tenant}/settings", {"contract": {"account_manager": "Grace"}}, ["settings.change"]),
        ("POST", f"{tenant}/settings/history/1/undo", None, ["settings.change"]),
        ("POST", f"{tenant}/status", {"status": "read-only", "reason": "unpaid"}, ["tenant.read-only"]),
        ("POST", f"{tenant}/status", {"status": "active"}, ["tenant.active"]),
        (
            "POST",
            f"/staff/v1/neighbours/advice/{advice['id']}/carry-out",
            None,
            ["advice.carry-out", "entitlement.grant"],
        ),
    ]


async def test_what_staff_change_is_in_the_catalogs_audit(
    runtime: Runtime, app: StrataApp, tenant_on: Tenantry
) -> None:
    _, context = await noisy(runtime, tenant_on)
    flag = f"f{secrets.token_hex(5)}"
    async with client_of(app, "console.localhost", token=token_for_staff(runtime.tokens)) as client:
        newest = (await client.get("/staff/v1/audit", params={"limit": "1"})).json()["items"][0]["sequence"]
        advised = (await client.get("/staff/v1/neighbours")).json()["advice"]
        advice = next(each for each in advised if each["tenant"] == context.slug)
        for method, address, document, expected in steps_of_staff(context.slug, flag, advice):
            answer = await client.request(method, address, json=document, headers={"If-Match": "*"})
            assert answer.status_code < 300, (address, answer.text)
            items = (await client.get("/staff/v1/audit", params={"limit": "5"})).json()["items"]
            new = [each for each in items if each["sequence"] > newest]
            assert sorted(each["action"] for each in new) == expected, address
            assert {each["actor"] for each in new} == {"staff:staff@tests"}
            assert {each["subject"] for each in new} <= {context.slug, flag}
            assert all(each["request"] and each["authentication"] for each in new)
            newest = items[0]["sequence"]
        assert (await client.get("/staff/v1/audit/verification")).json()["findings"] == []


async def test_what_the_tenant_changes_is_in_its_own(runtime: Runtime, app: StrataApp, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SCHEMA)
    await stocked(runtime, context, skus=1, on_hand=5)
    rules = {"rules": {"approval_above": 10}, "custom_fields": {"product": [{"key": "colour", "label": "Colour"}]}}
    receive = {"kind": "receive", "lines": [{"sku": "S-0", "bin": "B-0", "quantity": 11}]}
    host = f"{context.slug}.localhost"
    asker = token_for(runtime.tokens, context)
    approver = tenant_token(runtime.tokens, context.id, Role.WAREHOUSE_MANAGER, subject="approver")
    async with (
        client_of(app, host, token=asker) as client,
        client_of(app, host, token=approver) as other,
    ):

        async def newest() -> str:
            action: str = (await client.get("/api/v1/audit", params={"limit": "1"})).json()["items"][0]["action"]
            return action

        changed = await client.patch("/api/v1/settings", json=rules, headers={"If-Match": "*"})
        assert (changed.status_code, await newest()) == (200, "settings.change")
        for verdict, ending in (("approve", "approval"), ("reject", "rejection")):
            asked = await client.post("/api/v1/movements", json=receive)
            assert (asked.status_code, await newest()) == (202, "movement.ask")
            decided = await other.post(f"{asked.headers['Location']}/{ending}", json={})
            assert (decided.status_code, await newest()) == (200, f"movement.{verdict}")
        undone = await client.post("/api/v1/settings/history/1/undo")
        assert (undone.status_code, await newest()) == (200, "settings.undo")
        assert (await client.get("/api/v1/audit/verification")).json()["findings"] == []
