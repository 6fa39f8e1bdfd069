"""The hours in which a wave may begin moves."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from strata.migrator.waves.window import Window, WindowError

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("hours", "at", "is_open"),
    [
        ("01:00-05:00", "00:59", False),
        ("01:00-05:00", "01:00", True),
        ("01:00-05:00", "04:59", True),
        ("01:00-05:00", "05:00", False),
        ("22:00-04:00", "23:30", True),
        ("22:00-04:00", "03:59", True),
        ("22:00-04:00", "12:00", False),
    ],
)
def test_it_is_open_by_the_clock_on_the_wall_of_its_zone(hours: str, at: str, *, is_open: bool) -> None:
    window = Window.read(hours, "Asia/Bangkok")
    there = datetime.fromisoformat(f"2026-11-28T{at}:00+07:00")
    assert window.open_at(there.astimezone(UTC)) is is_open


def test_summer_time_moves_it_with_the_people() -> None:
    window = Window.read("01:00-05:00", "Europe/Berlin")
    assert window.open_at(datetime(2026, 1, 10, 0, 30, tzinfo=UTC))
    assert not window.open_at(datetime(2026, 1, 10, 4, 30, tzinfo=UTC))
    assert window.open_at(datetime(2026, 7, 10, 23, 30, tzinfo=UTC))
    assert not window.open_at(datetime(2026, 7, 10, 3, 30, tzinfo=UTC))


def test_hours_that_summer_time_skips_are_those_of_the_next_day() -> None:
    window = Window.read("02:10-02:50", "Europe/Berlin")
    opens = window.opens_after(datetime(2026, 3, 29, 0, 0, tzinfo=UTC))
    assert opens.astimezone(BERLIN) == datetime(2026, 3, 30, 2, 10, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("hours", "zone"), [("1-5", "UTC"), ("24:00-05:00", "UTC"), ("01:00-01:00", "UTC"), ("01:00-05:00", "Berlin")]
)
def test_what_is_no_window_is_refused_in_a_sentence(hours: str, zone: str) -> None:
    with pytest.raises(WindowError, match=r"write|leave"):
        Window.read(hours, zone)
