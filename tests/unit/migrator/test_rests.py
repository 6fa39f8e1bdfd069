"""How often a query sleeps, by what its rows take."""

from __future__ import annotations

import pytest

from strata.migrator.rests import Rests


def often(rests: Rests) -> float:
    """Of its rows, after how many it sleeps for two milliseconds."""
    return float(rests.condition.removeprefix(" AND (random() > ").partition(" ")[0])


def test_nobody_to_be_spared() -> None:
    assert Rests(lambda _: 0.0).condition == ""


def test_rests_as_long_as_the_work() -> None:
    rests = Rests(lambda worked_s: worked_s)
    for _ in range(20):
        # A row takes ten microseconds, and as much again is slept.
        rests.lasted(0.2, 10_000)
    assert often(rests) == pytest.approx(10e-6 / 0.002, rel=0.01)


def test_a_row_that_takes_longer_than_a_nap_is_rested_after() -> None:
    rests = Rests(lambda worked_s: 9 * worked_s)
    for _ in range(20):
        rests.lasted(1.0, 100)
    assert often(rests) == 1.0


def test_of_nothing_nothing_is_learned() -> None:
    rests = Rests(lambda worked_s: worked_s)
    before = rests.condition
    rests.lasted(1.0, 0)
    assert rests.condition == before
