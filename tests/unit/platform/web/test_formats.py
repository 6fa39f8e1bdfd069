from __future__ import annotations

from datetime import UTC, datetime

import pytest

from strata.platform.web.formats import formats

SUMMER = datetime(2026, 7, 1, 22, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("locale", "written"),
    [("en", "−1,234,567"), ("de_DE", "−1.234.567"), ("fr-FR", "−1\u202f234\u202f567"), ("xx", "−1,234,567")],
)
def test_numbers(locale: str, written: str) -> None:
    assert formats("UTC", locale).number(-1_234_567) == written


def test_changes_say_their_sign() -> None:
    found = formats("UTC", "en")
    assert [found.change(value) for value in (5, -5)] == ["+5", "−5"]


def test_moments_are_the_tenants() -> None:
    assert formats("Europe/Berlin", "en").moment(SUMMER) == "2026-07-02 00:30"
    assert formats("Europe/Berlin", "en").exact(SUMMER) == "2026-07-01T22:30:00+00:00"


@pytest.mark.parametrize("name", ["Mars/Olympus", "../../etc/passwd", ""])
def test_an_unknown_zone_is_utc_and_says_so(name: str) -> None:
    found = formats(name, "en")
    assert (found.zone_name, found.moment(SUMMER)) == ("UTC", "2026-07-01 22:30")
