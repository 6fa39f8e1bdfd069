"""Numbers and moments as a tenant's people read them."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import structlog

_POINT = frozenset({"de", "es", "it", "nl", "pt", "id", "tr", "da"})
_NARROW_SPACE = frozenset({"fr", "ru", "pl", "sv", "nb", "fi", "cs", "uk"})

log = structlog.get_logger(__name__)


class Formats(msgspec.Struct, frozen=True):
    zone: tzinfo
    zone_name: str
    separator: str

    def number(self, value: int) -> str:
        # U+2212, the minus sign: a hyphen is half as wide and is lost before a digit.
        return f"{value:,}".replace(",", self.separator).replace("-", "\u2212")

    def change(self, value: int) -> str:
        return f"+{self.number(value)}" if value > 0 else self.number(value)

    def moment(self, value: datetime) -> str:
        return f"{value.astimezone(self.zone):%Y-%m-%d %H:%M}"

    @staticmethod
    def exact(value: datetime) -> str:
        return value.astimezone(UTC).isoformat(timespec="seconds")


@cache
def formats(time_zone: str, locale: str) -> Formats:
    zone: tzinfo = UTC
    if time_zone != "UTC":
        try:
            zone = ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            # Better the wrong hours, named as UTC on the page, than no page.
            log.warning("time_zone.unknown", time_zone=time_zone)
            time_zone = "UTC"
    language = locale.replace("_", "-").partition("-")[0].lower()
    separator = "." if language in _POINT else "\u202f" if language in _NARROW_SPACE else ","
    return Formats(zone, time_zone, separator)
