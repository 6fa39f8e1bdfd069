"""Every operator, on what it compares with and on what it cannot."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from strata.platform.errors import InvalidInputError
from strata.tenancy.flags.conditions import precedence
from tests.builders.flags import compiled, flag, segment, tenant

AWARE = datetime(2027, 1, 31, tzinfo=UTC)


def holds(condition: dict[str, Any], user: dict[str, Any] | None = None, **members: Any) -> bool:  # noqa: ANN401
    flags = compiled(flag(rules=[{"name": "r", "when": [condition], "serve": "on"}]))
    return flags.evaluate("new-labels", tenant(**members), user or {}).is_on


@pytest.mark.parametrize(
    ("operator", "values", "yes", "no"),
    [
        ("equals", ["a"], ["a"], ["b", "A", "", 1, ["b"]]),
        ("equals", [1], [1, 1.0], [2, True, "1"]),
        ("equals", [True], [True], [1, False, "true"]),
        ("in", ["a", "b"], ["a", "b", ["x", "b"]], ["c", ["x"]]),
        ("contains", ["an"], ["banana", ["an"]], ["bnn", ["banana"], 5]),
        ("starts-with", ["ab", "x"], ["abc", "x"], ["cab", 5]),
        ("ends-with", ["bc"], ["abc"], ["bcd", 5]),
        ("less-than", [5], [4, 4.9], [5, "4", True]),
        ("at-most", [5], [5, -1], [5.1]),
        ("greater-than", [5], [6], [5, "6"]),
        ("at-least", [5], [5], [4.9]),
        (
            "before",
            ["2027-02-01T00:00:00Z"],
            ["2027-01-31", AWARE, "2027-02-01T00:30:00+01:00"],
            ["2027-02-01", "soon", 3],
        ),
        ("after", ["2027-01-01"], [AWARE, "2027-01-01T00:00:01"], ["2027-01-01", "2026-12-31"]),
        ("version-equals", ["1.2.3"], ["1.2.3", "v1.2.3", "1.2.3+build.5"], ["1.2.3-rc.1", "1.2", 1]),
        ("version-below", ["1.10.0"], ["1.9.9", "1.10.0-rc.1"], ["1.10.0", "2.0.0", "one"]),
        ("version-at-least", ["1.10.0"], ["1.10.0", "1.10.1-rc.1", "10.0.0"], ["1.9.0", "1.10.0-alpha"]),
    ],
)
def test_operators(operator: str, values: list[Any], yes: list[Any], no: list[Any]) -> None:
    condition = {"attribute": "user.it", "operator": operator, "values": values}
    for it in yes:
        assert holds(condition, {"it": it}), it
        assert not holds({**condition, "negate": True}, {"it": it}), it
    for it in no:
        assert not holds(condition, {"it": it}), it


def test_what_is_missing_or_cannot_be_compared_never_holds_negated_or_not() -> None:
    for operator, value in (("equals", "a"), ("less-than", 5), ("before", "2027-01-01"), ("starts-with", "a")):
        condition = {"attribute": "user.it", "operator": operator, "values": [value]}
        assert not holds(condition)
        assert not holds({**condition, "negate": True})
    assert not holds({"attribute": "user.it", "operator": "less-than", "values": [5], "negate": True}, {"it": "nine"})


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("slug", "tenant-0"),
        ("plan", "starter"),
        ("plan-rank", 10),
        ("plan-version", 1),
        ("status", "active"),
        ("features", "import"),
        ("locale", "en"),
        ("time-zone", "UTC"),
        ("currency", "USD"),
        ("id", str(tenant().id)),
    ],
)
def test_attributes_of_a_tenant(attribute: str, value: object) -> None:
    assert holds({"attribute": f"tenant.{attribute}", "operator": "equals", "values": [value]})


def test_a_tenant_is_as_old_as_it_is() -> None:
    before = {"attribute": "tenant.created-at", "operator": "before", "values": ["2027-02-01"]}
    assert holds(before, created_at=AWARE)
    assert not holds(before)


def test_semver_orders_as_semver_org_does() -> None:
    ordered = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.0.1",
    ]
    assert sorted(set(ordered), key=precedence) == ordered


def test_segments_take_in_exclude_and_describe() -> None:
    beta = segment(
        "beta",
        tenants=[str(tenant(1).id), str(tenant(2).id)],
        excluded=[str(tenant(2).id), str(tenant(3).id)],
        any_of=[
            [{"attribute": "tenant.plan", "operator": "equals", "values": ["business"]}],
            [
                {"attribute": "user.role", "operator": "equals", "values": ["viewer"]},
                {"attribute": "tenant.plan", "operator": "equals", "values": ["free"]},
            ],
        ],
    )
    rule = {"name": "r", "when": [{"operator": "in-segment", "values": ["beta"]}], "serve": "on"}
    flags = compiled(flag(rules=[rule]), segments=(beta,))

    def within(number: int, plan: str = "starter", **user: str) -> bool:
        return flags.evaluate("new-labels", tenant(number, plan=plan), user).is_on

    assert (within(1), within(2), within(4)) == (True, False, False)
    assert (within(4, "business"), within(3, "business")) == (True, False)
    assert (within(4, "free", role="viewer"), within(4, "free")) == (True, False)


@pytest.mark.parametrize(
    ("condition", "path"),
    [
        ({"attribute": "tenant.tier", "operator": "equals", "values": ["shared"]}, "attribute"),
        ({"attribute": "tenant.cell", "operator": "equals", "values": ["cell-1"]}, "attribute"),
        ({"attribute": "plan", "operator": "equals", "values": ["free"]}, "attribute"),
        ({"attribute": "user.n", "operator": "less-than", "values": ["x"]}, "values"),
        ({"attribute": "user.n", "operator": "less-than", "values": [1, 2]}, "values"),
        ({"attribute": "user.n", "operator": "before", "values": ["soon"]}, "values"),
        ({"attribute": "user.n", "operator": "version-below", "values": ["1.2"]}, "values"),
        ({"attribute": "user.n", "operator": "starts-with", "values": [1]}, "values"),
        ({"operator": "in-segment", "values": ["nobody"]}, "values"),
    ],
)
def test_a_condition_that_means_nothing_is_refused(condition: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        holds(condition)
    assert refused.value.extra["errors"][0]["path"] == f"/rules/0/when/0/{path}"  # type: ignore[index]
