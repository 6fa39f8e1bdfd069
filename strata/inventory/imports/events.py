"""An upload is committed with this event, and its consumer queues the job: neither is ever there without the other."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from strata.tenancy.events.types import Event, EventKind


class ImportQueued(Event, frozen=True):
    """A file has been taken in and is to be imported by workers."""

    kind: ClassVar = EventKind("import.queued", 1)

    import_id: UUID


EVENTS: tuple[type[Event], ...] = (ImportQueued,)
