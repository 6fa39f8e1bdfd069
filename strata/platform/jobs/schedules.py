"""When a scheduled job is due: in a time zone, whatever its clocks do."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec


class Due(msgspec.Struct, frozen=True):
    at: datetime
    label: str
    """Names the occurrence: the same wherever and however often it is worked out."""


class Every(msgspec.Struct, frozen=True):
    """At fixed distances from midnight UTC; the same moment in every zone."""

    minutes: float
    spread_s: int = 0
    fires_at_first_sight = True

    def latest(self, now: datetime, zone: ZoneInfo) -> Due:  # noqa: ARG002 - as Daily
        step = timedelta(minutes=self.minutes)
        epoch = datetime.fromtimestamp(0, UTC)
        at = epoch + (now - epoch) // step * step
        return Due(at, at.isoformat())


class Daily(msgspec.Struct, frozen=True):
    """Once a day, at a time on the zone's clocks. A time that the clocks leave out happens when they go on; one that they
    show twice happens the first time.
    """

    at: time
    spread_s: int = 0
    """Owners are spread over so many seconds: those of one zone are many."""
    fires_at_first_sight = False

    def latest(self, now: datetime, zone: ZoneInfo) -> Due:
        """The last occurrence that is not after `now`."""
        day = now.astimezone(zone).date()
        while (due_at := self._on(day, zone)) > now:
            day -= timedelta(days=1)
        return Due(due_at, day.isoformat())

    def _on(self, day: date, zone: ZoneInfo) -> datetime:
        # fold=0 reads an ambiguous time as its first; in a gap it reads with the offset before, which lands as far
        # behind the gap as the time stands within it.
        return datetime.combine(day, self.at, zone).astimezone(UTC)


Schedule = Every | Daily
