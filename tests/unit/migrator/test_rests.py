"""How often a query sleeps, by what its rows take."""

from __future__ import annotations

import pytest

from strata.migrator.rests import Rests


def often(rests: Rests) -> float:
    """Of its rows, after how many it sleeps for two milliseconds."""
    return float(rests.condition.removeprefix(" AND CASE WHEN random() > ").partition(" ")[0])


def test_nobody_to_be_spared() -> None:
    assert Rests(lambda _: 0.0).condition == ""


def test_rests_as_long_as_the_work() -> None:
    rests = Rests(lambda worked_s: worked_s)
    for _ in range(20):
        # A row takes ten microseconds, and as much again is slept.
        rests.learn(0.1, 10_000)
    assert often(rests) == pytest.approx(10e-6 / 0.002, rel=0.01)


def test_a_row_that_takes_longer_than_a_nap_is_rested_after() -> None:
    rests = Rests(lambda worked_s: 9 * worked_s)
    for _ in range(20):
        rests.learn(1.0, 1000)
    assert often(rests) == 1.0


@pytest.mark.parametrize("rows", [0, 1, 100])
def test_of_next_to_nothing_nothing_is_learned(rows: int) -> None:
    """Some milliseconds there and back, for one row: as if each of the next table's took as long."""
    rests = Rests(lambda worked_s: worked_s)
    before = rests.condition
    rests.learn(0.005, rows)
    assert rests.condition == before


def test_of_few_rows_little_is_learned() -> None:
    rests = Rests(lambda worked_s: worked_s)
    for rows in (10_000, 300):
        rests.learn(rows * 5e-6 + 0.005, rows)
    assert often(rests) < 3 * 5e-6 / 0.002
