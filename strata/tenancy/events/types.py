"""Events as they are written and as they are read."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar
from uuid import UUID

import msgspec


class EventKind(msgspec.Struct, frozen=True):
    type: str
    """What happened, as `thing.happened`."""
    version: int
    """Rises when a payload changes so that an old reader would misread it; both are then published (publishing.py)."""

    def __str__(self) -> str:
        return f"{self.type} v{self.version}"


class Event(msgspec.Struct, frozen=True):
    """The payload of an event. Subclasses say what they are in `kind`; their docstring is published."""

    kind: ClassVar[EventKind]


class Place(msgspec.Struct, frozen=True, order=True):
    """Where an event stands among its tenant's. Positions compare within an epoch, that is within one cell."""

    epoch: int
    position: int


BEGINNING = Place(0, 0)


class Entry(msgspec.Struct, frozen=True):
    """A row of an outbox."""

    id: UUID
    tenant_id: UUID
    place: Place
    kind: EventKind
    occurred_at: datetime
    transaction_id: int
    payload: str


class Delivery(msgspec.Struct, frozen=True):
    """An event handed to a consumer that knows its kind."""

    id: UUID
    tenant_id: UUID
    place: Place
    occurred_at: datetime
    """When its transaction began."""
    transaction_id: int
    event: Event
    replayed: bool = False
    """A dead letter that a person had tried again: events after it may have been delivered before."""


class TenantMoved(Event, frozen=True):
    """The tenant lives somewhere else now. Soon after the cut-over; twice, perhaps, if a worker died just then."""

    kind: ClassVar = EventKind("tenant.moved", 1)

    from_tier: str
    to_tier: str
    from_region: str
    to_region: str


EVENTS: tuple[type[Event], ...] = (TenantMoved,)
