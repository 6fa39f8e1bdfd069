"""What a plan does not include is refused by name, on the API and on pages, and given by a plan, an add-on or an override."""

from __future__ import annotations

from strata.app import StrataApp
from strata.runtime import Runtime
from strata.tenancy.entitlements.asking import Feature
from strata.tenancy.entitlements.desk import NewGrant
from strata.tenancy.entitlements.grants import GrantKind
from strata.tenancy.model import Tier
from strata.tenancy.plans import catalogue
from tests.builders.http import client_of, token_for
from tests.builders.inventory import stocked
from tests.builders.platform import ACTOR, Tenantry
from tests.builders.queued_imports import upload

TRANSFER = {"kind": "transfer", "lines": [{"sku": "S-0", "bin": "B-0", "to_bin": "B-1", "quantity": 1}]}
FORM = {"kind": "transfer", "sku": "S-0", "bin": "B-0", "to_bin": "B-1", "quantity": "1"}
FILE = b"sku,name,quantity\nA,A,1\n"


def test_every_feature_that_is_asked_for_is_sold() -> None:
    assert set(Feature) <= catalogue().features()


async def test_transfers_are_for_plans_that_have_them(
    runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry
) -> None:
    tenant = await tenant_on(Tier.SHARED, plan="free")
    await stocked(runtime, tenant, bins=2, on_hand=9)
    async with client_of(whole_app, f"{tenant.slug}.localhost", token=token_for(runtime.tokens, tenant)) as client:
        refused = await client.post("/api/v1/movements", json=TRANSFER)
        assert (refused.status_code, refused.json()["code"], refused.json()["feature"]) == (
            403,
            "feature-missing",
            "transfers",
        )
        page = await client.post("/movements/new", data=FORM)
        assert (page.status_code, "does not include «transfers»" in page.text) == (403, True)
        form = (await client.get("/movements/new")).text
        assert ('value="transfer"' in form, 'value="receive"' in form) == (False, True)
        await runtime.entitlements.change_plan(tenant.slug, "starter", ACTOR)
        assert (await client.post("/api/v1/movements", json=TRANSFER)).status_code == 201
        assert 'value="transfer"' in (await client.get("/movements/new")).text


async def test_imports_can_be_withheld(runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED, plan="free")
    withheld = NewGrant(GrantKind.FEATURE, "import", "misuse, ticket 12", given=False)
    await runtime.entitlements.grant(tenant.slug, withheld, ACTOR)
    async with client_of(whole_app, f"{tenant.slug}.localhost", token=token_for(runtime.tokens, tenant)) as client:
        refused = await upload(client, FILE)
        assert (refused.status_code, refused.json()["code"]) == (403, "feature-missing")
        page = await client.post("/imports", data={"mapping": "stock-list"}, files={"file": ("a.csv", FILE)})
        assert (page.status_code, "does not include «import»" in page.text) == (403, True)
        await runtime.entitlements.revoke(tenant.slug, GrantKind.FEATURE, "import", "settled", ACTOR)
        assert (await upload(client, FILE)).status_code == 202
