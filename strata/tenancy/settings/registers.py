"""The registers that settings are checked against: zones of the tz database, locales of CLDR, currencies of ISO 4217."""

from __future__ import annotations

from functools import cache
from zoneinfo import available_timezones

from babel import Locale
from babel.core import get_global
from babel.localedata import locale_identifiers
from babel.numbers import get_currency_name

_NO_MONEY = frozenset({"XXX", "XTS"})


@cache
def time_zones() -> frozenset[str]:
    return frozenset(name for name in available_timezones() if not name.startswith(("posix/", "right/"))) - {
        "localtime"
    }


@cache
def locales() -> frozenset[str]:
    """As BCP 47 writes them: de-DE."""
    return frozenset(name.replace("_", "-") for name in locale_identifiers())


@cache
def currencies() -> frozenset[str]:
    """Those that some territory uses today: CLDR's table says from when to when."""
    in_use = {
        code
        for uses in get_global("territory_currencies").values()
        for code, _start, end, tender in uses
        if end is None and tender
    }
    return frozenset(in_use) - _NO_MONEY


@cache
def choices(register: str) -> list[tuple[str, str]]:
    """Values of a register with what a person calls each, for a form."""
    match register:
        case "time-zone":
            return [(name, name.replace("_", " ")) for name in sorted(time_zones())]
        case "locale":
            named = ((name, Locale.parse(name, sep="-").english_name or name) for name in locales())
            return sorted(((name, f"{title} ({name})") for name, title in named), key=lambda each: each[1])
        case _:
            return sorted((code, f"{code} · {get_currency_name(code, locale='en')}") for code in currencies())
