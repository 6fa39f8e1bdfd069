"""The hours of a day, in a named time zone, in which a wave may begin moves."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from strata.platform.errors import InvalidInputError

_WRITTEN = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_LOOK_AHEAD = timedelta(minutes=1)


class WindowError(InvalidInputError):
    code = "no-window"
    title = "Not hours of a day"


class Window(msgspec.Struct, frozen=True):
    begins: time
    ends: time
    """Earlier than `begins`: on the next day."""
    zone: str

    @classmethod
    def read(cls, hours: str, zone: str) -> Self:
        """«01:00-05:00» in «Europe/Berlin»."""
        found = _WRITTEN.fullmatch(hours.strip())
        if found is None:
            message = f"«{hours}» are no hours of a day: write 01:00-05:00."
            raise WindowError(message)
        begins, ends = time(int(found[1]), int(found[2])), time(int(found[3]), int(found[4]))
        if begins == ends:
            message = f"«{hours}» ends as it begins: leave the window out when a wave may begin moves at any hour."
            raise WindowError(message)
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            message = f"There is no time zone «{zone}»: write one as Europe/Berlin or UTC."
            raise WindowError(message) from None
        return cls(begins, ends, zone)

    def open_at(self, moment: datetime) -> bool:
        """By the clock on the wall there, whatever summer time does to it."""
        now = moment.astimezone(ZoneInfo(self.zone)).time()
        if self.begins < self.ends:
            return self.begins <= now < self.ends
        return now >= self.begins or now < self.ends

    def opens_after(self, moment: datetime) -> datetime:
        """The next minute at which it is open; an hour that summer time skips is not among them."""
        step = moment.replace(second=0, microsecond=0) + _LOOK_AHEAD
        while not self.open_at(step):
            step += _LOOK_AHEAD
        return step

    def __str__(self) -> str:
        return f"{self.begins:%H:%M}-{self.ends:%H:%M} {self.zone}"
