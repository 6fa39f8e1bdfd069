from __future__ import annotations

import pytest

from strata.platform.errors import ConfigurationError, InvalidInputError
from strata.tenancy.entitlements.asking import Feature
from strata.tenancy.model import Tier
from strata.tenancy.plans import PlanCatalogue, catalogue, plan_held, plan_named, plans
from strata.tenancy.provisioning.tenants import default_plan

TWO_VERSIONS = """
[plans.solo]
rank = 5
[[plans.solo.versions]]
version = 1
tiers = ["dedicated", "shared"]
features = ["import", "fax"]
limits = { skus = 100, users = 2 }
retention = { import_refusals_days = 10 }
[[plans.solo.versions]]
version = 2
tiers = ["shared"]
features = ["import", "labels"]
limits = { skus = 50 }
retention = { import_refusals_days = 5 }
"""


def test_plans_are_ranked_and_offer_every_tier() -> None:
    ranks = [plan.rank for plan in plans().values()]
    assert ranks == sorted(set(ranks))
    assert {tier for plan in plans().values() for tier in plan.tiers} == set(Tier)


@pytest.mark.parametrize("tier", list(Tier))
def test_every_tier_has_a_default_plan_that_sells_it(tier: Tier) -> None:
    assert plan_named(default_plan(tier)).tiers[0] is tier


def test_nothing_is_sold_that_opens_nothing() -> None:
    assert catalogue().features() == {feature.value for feature in Feature}


def test_an_unknown_plan_names_those_there_are() -> None:
    with pytest.raises(InvalidInputError, match="enterprise"):
        plan_named("platinum")
    with pytest.raises(InvalidInputError, match="no version 7"):
        plan_held("starter", 7)


def test_older_terms_are_kept_and_additions_reach_them() -> None:
    catalogue = PlanCatalogue(TWO_VERSIONS)
    bought, newest = catalogue.held("solo", 1), catalogue.newest("solo")
    assert (bought.limits.skus, bought.limits.users, bought.tiers[0]) == (100, 2, Tier.DEDICATED)
    assert bought.retention.import_refusals_days == 10
    assert bought.features == {"import", "fax", "labels"}
    assert (newest.version, newest.limits.skus, newest.limits.users) == (2, 50, None)
    assert newest.features == {"import", "labels"}, "what was taken out is for those who had it"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TWO_VERSIONS.replace("version = 2", "version = 3"), "numbered 1, 2, 3"),
        (f"{TWO_VERSIONS}\n[add-ons.more]\nlimits = {{ shelves = 3 }}", "shelves"),
    ],
)
def test_a_catalogue_that_means_nothing_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        PlanCatalogue(text)


def test_a_changed_catalogue_has_another_name() -> None:
    assert PlanCatalogue(TWO_VERSIONS).digest != PlanCatalogue(TWO_VERSIONS.replace("100", "101")).digest
