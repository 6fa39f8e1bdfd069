"""The order in which a flag is gone through, and that each answer says why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from strata.platform.errors import InvalidInputError
from strata.tenancy.flags.compiled_set import PrerequisiteCycleError
from strata.tenancy.flags.model import EVERYBODY, Reason
from tests.builders.flags import compiled, flag, segment, tenant

NOON = datetime(2027, 1, 31, 12, tzinfo=UTC)
PLAN = {"attribute": "tenant.plan", "operator": "equals", "values": ["starter"]}
TO_ALL: dict[str, Any] = {"rollout": EVERYBODY}


def test_an_unknown_flag_is_off() -> None:
    outcome = compiled().evaluate("no-such", tenant())
    assert (outcome.is_on, outcome.variant, outcome.reason) == (False, "off", Reason.UNKNOWN)


def test_the_switch_beats_everything() -> None:
    everything = {**TO_ALL, "rules": [{"name": "r", "when": [PLAN], "serve": "on"}], "default": "on"}
    here = tenant(overrides={"new-labels": "on"})
    assert compiled(flag(**everything)).evaluate("new-labels", here).is_on
    outcome = compiled(flag(**everything, killed=True)).evaluate("new-labels", here)
    assert (outcome.variant, outcome.reason) == ("off", Reason.KILLED)


def test_what_was_set_for_a_tenant_beats_schedule_plan_prerequisites_rules_and_shares() -> None:
    flags = compiled(
        flag("first"),
        flag(
            starts_at=NOON.isoformat(),
            plan_minimum="enterprise",
            prerequisites=[{"flag": "first", "variants": ["on"]}],
        ),
        now=lambda: NOON - timedelta(days=1),
    )
    outcome = flags.evaluate("new-labels", tenant(overrides={"new-labels": "on"}))
    assert (outcome.is_on, outcome.reason) == (True, Reason.OVERRIDE)
    off = compiled(flag(**TO_ALL)).evaluate("new-labels", tenant(overrides={"new-labels": "off"}))
    assert (off.is_on, off.reason) == (False, Reason.OVERRIDE)
    gone = compiled(flag(**TO_ALL)).evaluate("new-labels", tenant(overrides={"new-labels": "of-last-year"}))
    assert gone.reason is Reason.ROLLOUT


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        (NOON - timedelta(microseconds=1), Reason.NOT_YET),
        (NOON, Reason.ROLLOUT),
        (NOON + timedelta(hours=1) - timedelta(microseconds=1), Reason.ROLLOUT),
        (NOON + timedelta(hours=1), Reason.ENDED),
    ],
)
def test_a_schedule_begins_with_its_first_moment_and_ends_before_its_last(moment: datetime, reason: Reason) -> None:
    scheduled = flag(starts_at=NOON.isoformat(), ends_at=(NOON + timedelta(hours=1)).isoformat(), **TO_ALL)
    assert compiled(scheduled, now=lambda: moment).evaluate("new-labels", tenant()).reason is reason


@pytest.mark.parametrize(
    ("plan", "reason"),
    [("free", Reason.PLAN), ("starter", Reason.PLAN), ("business", Reason.RULE), ("enterprise", Reason.RULE)],
)
def test_a_plan_below_the_minimum_comes_before_rules(plan: str, reason: Reason) -> None:
    any_plan = {"attribute": "tenant.plan-rank", "operator": "at-least", "values": [0]}
    flags = compiled(flag(plan_minimum="business", rules=[{"name": "all", "when": [any_plan], "serve": "on"}]))
    assert flags.evaluate("new-labels", tenant(plan=plan)).reason is reason


def test_the_first_rule_that_holds_decides_and_says_its_name() -> None:
    rules = [
        {"name": "beta", "when": [{"operator": "in-segment", "values": ["beta"]}], "serve": "on"},
        {"name": "starters", "when": [PLAN], "serve": "off"},
    ]
    beta = segment("beta", tenants=[str(tenant(1).id)])
    flags = compiled(flag(rules=rules, **TO_ALL), segments=(beta,))
    assert [flags.evaluate("new-labels", tenant(n)).detail for n in (1, 2)] == ["beta", "starters"]
    assert flags.evaluate("new-labels", tenant(2, plan="free")).reason is Reason.ROLLOUT


def test_a_rule_for_a_share_lets_the_others_go_on() -> None:
    flags = compiled(flag(rules=[{"name": "half", "when": [PLAN], "serve": "on", "rollout": 5000}]))
    reasons = [flags.evaluate("new-labels", tenant(n)).reason for n in range(200)]
    assert set(reasons) == {Reason.RULE, Reason.DEFAULT}


def test_the_default_is_for_all_the_rest() -> None:
    outcome = compiled(flag(default="on")).evaluate("new-labels", tenant())
    assert (outcome.is_on, outcome.reason) == (True, Reason.DEFAULT)


def test_a_flag_needs_others_to_be_as_it_says() -> None:
    first = flag("first", variants={"a": 1, "b": 2}, off="a", on="b", default="a")
    second = flag("second", prerequisites=[{"flag": "first", "variants": ["b"]}], **TO_ALL)
    third = flag("third", prerequisites=[{"flag": "second", "variants": ["on"]}], **TO_ALL)
    flags = compiled(third, second, first)
    assert flags.evaluate("third", tenant()).reason is Reason.PREREQUISITE
    assert flags.evaluate("third", tenant(overrides={"first": "b"})).reason is Reason.ROLLOUT
    assert "first to be b" in flags.evaluate("second", tenant()).detail


def test_flags_that_need_each_other_are_refused_and_off_where_they_got_in() -> None:
    one = flag("one", prerequisites=[{"flag": "two", "variants": ["on"]}], **TO_ALL)
    two = flag("two", prerequisites=[{"flag": "three", "variants": ["on"]}], **TO_ALL)
    three = flag("three", prerequisites=[{"flag": "one", "variants": ["on"]}], **TO_ALL)
    with pytest.raises(PrerequisiteCycleError, match="one -> two -> three -> one"):
        compiled(one, two, three)
    flags = compiled(one, two, three, flag("sound", **TO_ALL), strict=False)
    assert [flags.evaluate(key, tenant()).is_on for key in ("one", "two", "three", "sound")] == [False] * 3 + [True]


def test_what_this_release_cannot_compile_is_off_and_the_others_work() -> None:
    broken = flag(
        "broken", rules=[{"name": "r", "when": [{"operator": "in-segment", "values": ["no"]}], "serve": "on"}]
    )
    flags = compiled(broken, flag(**TO_ALL), strict=False)
    assert not flags.evaluate("broken", tenant()).is_on
    assert flags.evaluate("new-labels", tenant()).is_on


def test_payloads_come_with_their_variants_and_everything_is_counted() -> None:
    flags = compiled(
        flag(variants={"small": {"rows": 10}, "large": [1]}, off="small", on="large", default="small", **TO_ALL)
    )
    for number in range(3):
        assert flags.evaluate("new-labels", tenant(number)).value == [1]
    flags.evaluate("no-such", tenant())
    counted = {(each.flag, each.variant, each.reason): each.count for each in flags.outcomes() if each.count}
    assert counted == {("new-labels", "large", Reason.ROLLOUT): 3, ("no-such", "off", Reason.UNKNOWN): 1}


def test_names_of_unknown_flags_do_not_fill_the_memory() -> None:
    flags = compiled()
    for number in range(5000):
        flags.evaluate(f"no-such-{number}", tenant())
    assert len(list(flags.outcomes())) == 1000


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"variants": {}}, "/variants"),
        ({"on": "blue"}, "/on"),
        ({"default": "blue"}, "/default"),
        ({"hash_version": 7}, "/hash_version"),
        ({"plan_minimum": "platinum"}, "/plan"),
        ({"split": {"on": 5000, "off": 4999}}, "/split"),
        ({"split": {"blue": 10_000}}, "/split/blue"),
        ({"starts_at": "2027-01-01T00:00:00"}, "/starts_at"),
        ({"starts_at": "2027-01-01T00:00:00Z", "ends_at": "2027-01-01T00:00:00Z"}, "/ends_at"),
        ({"rules": [{"name": "r", "when": [PLAN]}]}, "/rules/0"),
        ({"rules": [{"name": "r", "when": [PLAN], "serve": "blue"}]}, "/rules/0/serve"),
        ({"prerequisites": [{"flag": "nobody", "variants": ["on"]}]}, "/prerequisites/0/flag"),
        ({"prerequisites": [{"flag": "other", "variants": ["blue"]}]}, "/prerequisites/0/variants"),
    ],
)
def test_a_document_that_means_nothing_is_refused_by_the_path_of_what_is_wrong(
    members: dict[str, Any], path: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        compiled(flag("other"), flag(**members))
    assert refused.value.extra["errors"][0]["path"] == path  # type: ignore[index]
