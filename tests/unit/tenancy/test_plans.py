from __future__ import annotations

import pytest

from strata.platform.errors import InvalidInputError
from strata.tenancy.facets.entitlements import FEATURES, LIMITS
from strata.tenancy.model import Tier
from strata.tenancy.plans import plan_named, plans
from strata.tenancy.provisioning.tenants import default_plan


def test_plans_are_ranked_and_offer_every_tier() -> None:
    ranks = [plan.rank for plan in plans().values()]
    assert ranks == sorted(set(ranks))
    assert {tier for plan in plans().values() for tier in plan.tiers} == set(Tier)


@pytest.mark.parametrize("tier", list(Tier))
def test_every_tier_has_a_default_plan_that_sells_it(tier: Tier) -> None:
    assert plan_named(default_plan(tier)).tiers[0] is tier


def test_an_unknown_plan_names_those_there_are() -> None:
    with pytest.raises(InvalidInputError, match="enterprise"):
        plan_named("platinum")


def test_limits_come_from_the_plan_and_give_way_to_an_agreement() -> None:
    assert LIMITS.decode(None, "free") == plan_named("free").limits
    agreed = LIMITS.decode({"skus": 7, "users": None}, "free")
    assert (agreed.skus, agreed.users, agreed.locations) == (7, None, plan_named("free").limits.locations)


def test_features_can_be_added_and_taken_away() -> None:
    features = FEATURES.decode({"on": ["sso"], "off": ["import"]}, "starter")
    assert "sso" in features
    assert "import" not in features
    assert "transfers" in features
