"""Where a plan sends the tenants of what is drained."""

from __future__ import annotations

from typing import Any

import msgspec

from strata.platform.ids import new_id
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.draining import Leaving, Place, planned


def leaving(slug: str = "a", **changes: Any) -> Leaving:  # noqa: ANN401
    tenant = Leaving(id=new_id(), slug=slug, tier=Tier.SHARED, plan="starter", region="eu", pinned=False, cell="old")
    return msgspec.structs.replace(tenant, **changes)


def place(cell: str | None, **changes: Any) -> Place:  # noqa: ANN401
    made = Place(server="s", cell=cell, region="eu", plans=None, capacity=10, taken=0)
    return msgspec.structs.replace(made, **changes)


def test_tenants_are_spread_by_what_is_left_of_each_place() -> None:
    moves = planned([leaving(str(n)) for n in range(6)], [place("big", capacity=20), place("small", capacity=10)])
    assert sorted(str(move.to_cell) for move in moves) == ["big"] * 4 + ["small"] * 2


def test_a_full_place_takes_nobody_and_the_plan_says_so() -> None:
    first, second = planned([leaving("a"), leaving("b")], [place("one", capacity=1)])
    assert first.to_cell == "one"
    assert (second.to_server, second.to_cell) == (None, None)
    assert "No open cell has room for plan starter" in second.reason


def test_a_pinned_tenant_stays_in_its_region_and_another_prefers_to() -> None:
    places = [place("here", taken=9), place("away", region="us")]
    [free] = planned([leaving()], [place("here", taken=9), place("away", region="us")])
    assert free.to_cell == "here"
    pinned = [leaving("a", pinned=True), leaving("b", pinned=True), leaving("c")]
    moves = planned(pinned, places)
    assert [move.to_cell for move in moves] == ["here", None, "away"]
    assert "to which it is pinned" in moves[1].reason
    assert "not pinned" in moves[2].reason


def test_what_is_kept_for_a_plan_is_for_that_plan_and_comes_first() -> None:
    places = [place("any"), place("kept", plans=("business",), taken=5)]
    moves = planned([leaving(), leaving("b", plan="business")], places)
    assert [move.to_cell for move in moves] == ["any", "kept"]


def test_a_dedicated_tenant_goes_to_a_server_and_the_others_to_cells() -> None:
    places = [place("cell"), place(None, server="s1", capacity=None, taken=3), place(None, server="s2", capacity=None)]
    moves = planned([leaving("a", tier=Tier.DEDICATED), leaving("b", tier=Tier.SCHEMA)], places)
    assert [(move.to_server, move.to_cell) for move in moves] == [("s2", None), ("s", "cell")]
