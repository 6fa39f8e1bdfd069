"""Published schemas are those of the types, and a published version does not change under its readers."""

from __future__ import annotations

from typing import ClassVar

import msgspec
import pytest

from strata.events import EVENTS
from strata.tenancy.events.publishing import incompatibilities, rendered, schema, schemas
from strata.tenancy.events.types import Event, EventKind
from tools.event_schemas import DIRECTORY


class Line(msgspec.Struct, frozen=True):
    sku: str
    quantity: int


class Told(Event, frozen=True):
    kind: ClassVar = EventKind("test.told", 1)

    number: int
    lines: list[Line]
    note: str | None = None


class LineWithMore(msgspec.Struct, frozen=True):
    sku: str
    quantity: int
    batch: str = ""


class ToldMore(Event, frozen=True):
    kind: ClassVar = EventKind("test.told", 1)

    number: int
    lines: list[LineWithMore]
    note: str | None = None
    colour: str = "red"


class ToldLess(Event, frozen=True):
    kind: ClassVar = EventKind("test.told", 1)

    number: int
    lines: list[Line]


class ToldOtherwise(Event, frozen=True):
    kind: ClassVar = EventKind("test.told", 1)

    number: str
    lines: list[Line]
    note: str | None = None


class LineOtherwise(msgspec.Struct, frozen=True):
    sku: str
    quantity: str


class ToldOtherwiseWithin(Event, frozen=True):
    kind: ClassVar = EventKind("test.told", 1)

    number: int
    lines: list[LineOtherwise]
    note: str | None = None


class ToldWithDemands(Event, frozen=True):
    kind: ClassVar = EventKind("test.told", 1)

    number: int
    lines: list[Line]
    colour: str
    note: str | None = None


def test_every_event_is_published_as_it_is() -> None:
    """Red: run python -m tools.event_schemas; if that refuses, the change needs a new version."""
    for name, now in schemas(EVENTS).items():
        published = DIRECTORY / name
        assert published.exists(), name
        assert incompatibilities(msgspec.json.decode(published.read_bytes()), now) == [], name
        assert published.read_bytes() == rendered(now), name


def test_no_published_version_is_taken_away() -> None:
    assert {file.name for file in DIRECTORY.glob("*.v*.json")} <= schemas(EVENTS).keys()


def test_fields_that_nobody_needs_may_be_added_to_a_version() -> None:
    assert incompatibilities(schema(Told), schema(ToldMore)) == []


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        (ToldLess, "payload.note"),
        (ToldOtherwise, "payload.number"),
        (ToldOtherwiseWithin, "payload.lines[].quantity"),
        (ToldWithDemands, "requires"),
    ],
)
def test_what_readers_would_stumble_over_is_refused(changed: type[Event], where: str) -> None:
    found = incompatibilities(schema(Told), schema(changed))
    assert len(found) == 1
    assert where in found[0]


def test_two_events_of_one_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"test\.told v1"):
        schemas([Told, ToldMore])
