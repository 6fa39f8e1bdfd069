"""How fast a copy goes, by what the servers show."""

from __future__ import annotations

import pytest

from strata.migrator.throttle import SLOWEST, Limits, Look, Pace, limits_of
from strata.platform.settings import MigratorSettings

LIMITS = Limits(standby_lag_bytes=1000, slot_room_bytes=500, slower_times=3.0, slow_ms=20.0, share=0.5)
CALM = Look("eu-1", standby_lag_bytes=0, slot_room_bytes=None, commit_ms=2.0)


def pace(workers: int = 4, before_ms: float = 2.0) -> Pace:
    made = Pace(workers, LIMITS)
    for _ in range(5):
        made.learn(Look("eu-1", 0, None, before_ms))
    return made


def test_without_pressure_every_worker_goes_on_at_once() -> None:
    made = pace()
    made.consider([CALM])
    assert made.pressure is None
    assert [made.goes(lane) for lane in range(4)] == [True] * 4
    assert [made.rest_s(lane, 1.0) for lane in range(4)] == [1.0] * 4


@pytest.mark.parametrize(
    ("look", "says"),
    [
        (Look("eu-1", 2 << 20, None, 2.0), "A standby of eu-1 is 2 MiB behind."),
        (Look("eu-1", 0, 499, 2.0), "before it is given up"),
        (Look("eu-1", 0, None, 2.0, late=0.2), "are busy: 20% come late, and 0% did"),
        (Look("eu-1", 0, None, 40.0), "A commit in eu-1 takes 40 ms, and took 2 before the copy."),
    ],
)
def test_each_kind_of_pressure_slows_it_down_and_says_so(look: Look, says: str) -> None:
    made = pace()
    made.consider([look, Look("eu-2", 0, None, 2.0)])
    assert made.pressure is not None
    assert says in made.pressure
    assert made.level == pytest.approx(4 * 2 / 3)
    assert made.lanes == 3
    # The last worker stops; the one before it works two thirds of the time of those that go on.
    assert [made.goes(lane) for lane in range(4)] == [True, True, True, False]
    assert made.rest_s(2, 2.0) == pytest.approx(4.0)
    assert made.rest_s(1, 1.0) == 1.0


def test_it_never_stops_altogether_and_comes_back() -> None:
    made = pace()
    for _ in range(100):
        made.consider([Look("eu-1", 2000, None, 2.0)])
    assert made.level == SLOWEST
    assert made.rest_s(0, 1.0) == pytest.approx(2 / SLOWEST - 1)
    assert made.held_back == 100
    for _ in range(11):
        made.consider([CALM])
    assert made.level == 4.0
    assert made.pressure is None


def test_a_commit_that_was_slow_before_or_is_so_once_is_no_pressure() -> None:
    slow_disk = pace(before_ms=30.0)
    slow_disk.consider([Look("eu-1", 0, None, 60.0)])
    assert slow_disk.pressure is None
    made = pace()
    made.consider([CALM])
    made.consider([CALM])
    made.consider([Look("eu-1", 0, None, 500.0)])
    assert made.pressure is None


def test_the_limits_are_the_settings_of_their_names() -> None:
    settings = MigratorSettings(
        throttle_standby_lag_bytes=1,
        throttle_slot_room_bytes=2,
        throttle_slower_times=3.0,
        throttle_slow_ms=4.0,
        throttle_late_share=0.5,
        throttle_share=0.6,
    )
    assert limits_of(settings) == Limits(
        standby_lag_bytes=1, slot_room_bytes=2, slower_times=3.0, slow_ms=4.0, late_share=0.5, share=0.6
    )
    assert limits_of(MigratorSettings()) == Limits()


def test_without_a_share_it_never_rests() -> None:
    assert Pace(1, Limits(share=1.0)).rest_s(0, 1.0) == 0.0
