"""strata tenant plan, entitlements, grant, revoke."""

from __future__ import annotations

import pytest

from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.command import Command
from tests.builders.platform import Tenantry

pytestmark = pytest.mark.usefixtures("runtime")


async def test_a_plan_is_changed_after_it_was_foretold(strata: Command, runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED, plan="starter")
    foretold = await strata.json("tenant", "plan", tenant.slug, "free", "--dry-run")
    assert foretold["dry_run"] is True
    assert foretold["change"]["features_lost"] == ["transfers"]
    assert (await runtime.contexts.fresh(tenant.id)).plan == "starter"
    said = await strata("tenant", "plan", tenant.slug, "free")
    assert "starter v1 -> free v1" in said.out
    assert "20000 -> 5000, down" in said.out
    assert (await runtime.contexts.fresh(tenant.id)).plan == "free"
    unknown = await strata("tenant", "plan", tenant.slug, "platinum", "--json")
    assert (unknown.code, unknown.error["code"]) == (1, "invalid-input")


async def test_grants_are_made_shown_and_ended(strata: Command, runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED, plan="starter")
    await strata.json("tenant", "grant", tenant.slug, "limit", "skus", "--amount", "none", "--reason", "contract")
    await strata.json("tenant", "grant", tenant.slug, "feature", "import", "--withhold", "--reason", "misuse")
    found = await strata.json(
        "tenant", "grant", tenant.slug, "add-on", "extra-locations", "--amount", "2", "--reason", "bought",
        "--expires", "2999-01-01T00:00:00Z",
    )  # fmt: skip
    assert [(each["kind"], each["name"]) for each in found["grants"]] == [
        ("add-on", "extra-locations"),
        ("feature", "import"),
        ("limit", "skus"),
    ]
    context = await runtime.contexts.fresh(tenant.id)
    assert (context.limits.skus, context.limits.locations, "import" in context.features) == (None, 2000, False)
    said = await strata("tenant", "entitlements", tenant.slug)
    assert "add-on extra-locations x 2" in said.out
    assert "misuse" in said.out
    left = await strata.json("tenant", "revoke", tenant.slug, "limit", "skus", "--reason", "ended")
    assert len(left["grants"]) == 2
    for words in (
        ("grant", tenant.slug, "limit", "skus", "--reason", "x"),
        ("grant", tenant.slug, "limit", "skus", "--reason", "x", "--amount", "lots"),
        ("grant", tenant.slug, "limit", "shelves", "--reason", "x", "--amount", "1"),
        ("grant", tenant.slug, "feature", "sso", "--reason", "x", "--expires", "soon"),
        ("revoke", tenant.slug, "limit", "skus", "--reason", "x"),
    ):
        refused = await strata("tenant", *words, "--json")
        assert refused.code == 1, words
        assert refused.error["detail"].endswith("."), words
