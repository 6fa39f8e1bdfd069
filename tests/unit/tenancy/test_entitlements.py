"""What plan, add-ons and overrides come to, and what a change of plan would do."""

from __future__ import annotations

import msgspec
import pytest

from strata.platform.errors import InvalidInputError
from strata.tenancy.entitlements.desk import NewGrant
from strata.tenancy.entitlements.grants import (
    Entitled,
    FeatureEntitlement,
    Grant,
    GrantKind,
    LimitEntitlement,
    entitled,
)
from strata.tenancy.entitlements.plan_change import LimitChange, Over, plan_change
from strata.tenancy.facets.entitlements import FEATURES, LIMITS
from strata.tenancy.model import Tier
from strata.tenancy.plans import catalogue, plan_named

ADD_ON = Grant(GrantKind.ADD_ON, "extra-skus", 2)
OWN_DOMAIN = Grant(GrantKind.ADD_ON, "own-domain", 1)


def limit(found: Entitled, name: str) -> LimitEntitlement:
    return next(each for each in found.limits if each.name == name)


def feature(found: Entitled, name: str) -> FeatureEntitlement | None:
    return next((each for each in found.features if each.name == name), None)


def test_without_grants_it_is_the_plan() -> None:
    plan = plan_named("free")
    found = entitled(plan, [])
    assert found.limit_values() == plan.limits
    assert found.feature_names() == plan.features
    assert limit(found, "skus").sources == ("plan free v1",)


def test_add_ons_come_on_top_and_an_override_beats_them() -> None:
    plan = plan_named("free")
    raised = entitled(plan, [ADD_ON, OWN_DOMAIN])
    assert limit(raised, "skus") == LimitEntitlement("skus", 25_000, ("plan free v1", "add-on extra-skus x 2"))
    assert feature(raised, "custom-domain") == FeatureEntitlement(
        "custom-domain", held=True, sources=("add-on own-domain",)
    )
    fixed = entitled(plan, [ADD_ON, Grant(GrantKind.LIMIT, "skus", 7), Grant(GrantKind.LIMIT, "users", None)])
    assert limit(fixed, "skus").amount == 7
    assert limit(fixed, "skus").sources[-1] == "override"
    assert fixed.limit_values().users is None
    assert fixed.limit_values().locations == plan.limits.locations


def test_an_add_on_to_no_limit_leaves_none() -> None:
    assert entitled(plan_named("enterprise"), [ADD_ON]).limit_values().skus is None


def test_features_are_given_and_withheld_whatever_the_plan_says() -> None:
    grants = [Grant(GrantKind.FEATURE, "sso"), Grant(GrantKind.FEATURE, "import", given=False)]
    found = entitled(plan_named("starter"), grants)
    assert found.feature_names() == {"sso", "transfers"}
    assert feature(found, "import") == FeatureEntitlement("import", held=False, sources=("plan starter v1", "override"))


def test_contexts_show_the_same() -> None:
    documents = msgspec.to_builtins([ADD_ON, Grant(GrantKind.FEATURE, "sso")])
    plan = plan_named("free")
    assert "sso" in FEATURES.decode(documents, plan)
    assert LIMITS.decode(documents, plan).skus == 25_000
    assert LIMITS.decode(None, plan) == plan.limits


def test_a_grant_of_another_release_counts_for_nothing() -> None:
    plan = plan_named("free")
    assert entitled(
        plan, [Grant(GrantKind.ADD_ON, "of-tomorrow", 1), Grant(GrantKind.LIMIT, "shelves", 1)]
    ) == entitled(plan, [])


def test_a_change_of_plan_is_told_exactly() -> None:
    grants = [Grant(GrantKind.LIMIT, "locations", 5000), Grant(GrantKind.FEATURE, "sso")]
    change = plan_change(
        "acme",
        plan_named("business"),
        plan_named("starter"),
        grants,
        tier=Tier.SCHEMA,
        used={"skus": 20_001, "locations": 4000},
    )
    assert (change.before, change.after) == ("business v1", "starter v1")
    assert (change.features_gained, change.features_lost) == ((), ("custom-domain",))
    assert LimitChange("skus", 200_000, 20_000, 20_001) in change.limits
    assert "locations" not in {each.name for each in change.limits}, "the override holds on both plans"
    assert change.over == (Over("skus", 20_001, 20_000),)
    assert not change.tier_offered
    assert change.kept == ("limit locations = 5000", "feature sso")
    assert [(each.name, each.before, each.after) for each in change.retention] == [("import_refusals_days", 365, 90)]
    assert not change.changes_nothing


def test_ups_and_downs() -> None:
    up = plan_change("a", plan_named("free"), plan_named("enterprise"), [], tier=Tier.SHARED, used={"skus": 10**9})
    assert all(each.rises and each.after is None for each in up.limits)
    assert up.over == ()
    assert not LimitChange("skus", None, 5, None).rises
    same = plan_change("a", plan_named("free"), plan_named("free"), [], tier=None, used={})
    assert same.changes_nothing
    assert same.tier_offered


@pytest.mark.parametrize(
    ("kind", "name", "amount"),
    [(GrantKind.ADD_ON, "no-such", None), (GrantKind.ADD_ON, "extra-skus", 0), (GrantKind.LIMIT, "shelves", 3)],
)
def test_nobody_is_granted_what_is_not_known(kind: GrantKind, name: str, amount: int | None) -> None:
    with pytest.raises(InvalidInputError):
        NewGrant(kind, name, "because", amount).grant()


def test_every_add_on_of_the_catalogue_brings_something() -> None:
    for name, add_on in catalogue().add_ons.items():
        assert add_on.features or add_on.limits, name
