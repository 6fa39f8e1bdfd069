"""An import keeps out of the way of those who work in its cell, and of nobody else's."""

from __future__ import annotations

from uuid import UUID

import pytest

from strata.inventory.imports.pace import ImportPace
from strata.platform.settings import ImportSettings

TENANT = UUID(int=7)
WORKED_S = 0.05
SETTINGS = ImportSettings()


class Cell:
    """What the database counts while an import runs and its neighbours make so many transactions a second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.transactions = 1_000_000.0
        self.pace = ImportPace(SETTINGS, lambda: self.now)
        self.worked_s = 0.0

    def run(self, seconds: float, others_per_s: float) -> float:
        """The share of the time in which the import worked."""
        until, worked_s, began = self.now + seconds, 0.0, self.now
        while self.now < until:
            pause_s = self.pace.pause_s(TENANT, worked_s=WORKED_S, transactions=int(self.transactions))
            worked_s += WORKED_S
            # Five of its own: the batch's, the relay's and three consumers'.
            self.transactions += 5 + others_per_s * (WORKED_S + pause_s)
            self.now += WORKED_S + pause_s
        return worked_s / (self.now - began)


@pytest.mark.parametrize("others_per_s", [40, 800])
def test_beside_others_a_hundredth_of_the_time_at_most(others_per_s: float) -> None:
    cell = Cell()
    assert cell.run(300, others_per_s) <= 0.01


def test_alone_it_goes_at_speed() -> None:
    cell = Cell()
    cell.run(30, 1)
    assert cell.run(30, 1) == pytest.approx(SETTINGS.most_share, rel=0.2)


def test_a_short_one_alone_need_not_wait_long() -> None:
    cell = Cell()
    cell.run(4.5, 0)
    assert cell.run(1, 0) > 0.4


def test_it_makes_way_when_somebody_comes_and_goes_on_when_they_have_left() -> None:
    cell = Cell()
    cell.run(30, 0)
    cell.run(4, 500)
    assert cell.run(60, 500) <= 0.01
    cell.run(25, 0)
    assert cell.run(30, 0) > 0.4


def test_a_move_to_a_database_that_counts_otherwise_is_noticed() -> None:
    cell = Cell()
    cell.run(30, 0)
    cell.transactions = 50.0
    assert cell.pace.pause_s(TENANT, worked_s=WORKED_S, transactions=50) == pytest.approx(2.0)
