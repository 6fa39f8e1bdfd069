"""When a scheduled job is due, in zones whose clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.platform.jobs.schedules import Daily, Every

BERLIN = ZoneInfo("Europe/Berlin")  # 2026: on at 02:00 of March 29th, back at 03:00 of October 25th
ZONES = sorted(available_timezones() - {"localtime"})

APIA = {"Pacific/Apia", "Pacific/Fakaofo"}


def occurrences(schedule: Daily, zone: ZoneInfo, start: datetime, days: int) -> list[datetime]:
    """Every one that somebody sees who looks each ten minutes."""
    found: list[datetime] = []
    for look in range(days * 144):
        due = schedule.latest(start + timedelta(minutes=10 * look), zone)
        if due.at >= start and due.at not in found:
            found.append(due.at)
    return found


@pytest.mark.parametrize(
    ("at", "days"),
    [
        (time(3, 10), ("2026-03-28T02:10", "2026-03-29T01:10", "2026-03-30T01:10")),
        # Left out on the 29th: as long after the change as it stands in the gap.
        (time(2, 30), ("2026-03-28T01:30", "2026-03-29T01:30", "2026-03-30T00:30")),
    ],
)
def test_daily_when_the_clocks_go_on(at: time, days: tuple[str, ...]) -> None:
    found = occurrences(Daily(at), BERLIN, datetime(2026, 3, 27, 23, tzinfo=UTC), 3)
    assert found == [datetime.fromisoformat(day).replace(tzinfo=UTC) for day in days]


def test_daily_when_the_clocks_go_back_happens_the_first_time_only() -> None:
    found = occurrences(Daily(time(2, 30)), BERLIN, datetime(2026, 10, 23, 22, tzinfo=UTC), 3)
    days = ("2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30")
    assert found == [datetime.fromisoformat(day).replace(tzinfo=UTC) for day in days]


@given(
    st.sampled_from(ZONES),
    st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1)),  # noqa: DTZ001 - made aware below
    st.times(),
)
def test_daily_is_once_for_each_date_and_never_in_the_future(name: str, moment: datetime, at: time) -> None:
    zone, now, schedule = ZoneInfo(name), moment.replace(tzinfo=UTC), Daily(at)
    due = schedule.latest(now, zone)
    assert due.at <= now
    # The one before has the date before (Samoa left one out, in 2011); nothing in between is said twice.
    before = schedule.latest(due.at - timedelta(microseconds=1), zone)
    assert before.at < due.at
    dates_apart = datetime.fromisoformat(due.label) - datetime.fromisoformat(before.label)
    assert dates_apart == timedelta(days=2 if name in APIA and due.label == "2011-12-31" else 1)
    assert now - due.at < timedelta(hours=50)


def test_every_is_the_same_moment_in_every_zone() -> None:
    now = datetime(2026, 11, 22, 20, 17, 3, tzinfo=UTC)
    due = Every(minutes=5).latest(now, BERLIN)
    assert due == Every(minutes=5).latest(now + timedelta(minutes=2), ZoneInfo("UTC"))
    assert due.at == datetime(2026, 11, 22, 20, 15, tzinfo=UTC)
