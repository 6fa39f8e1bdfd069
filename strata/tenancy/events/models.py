"""What consumers of events keep in the tenant's own tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from strata.tenancy.events.types import Entry, EventKind, Place
from strata.tenancy.scoping import TenantModel


class EventMark(TenantModel):
    """How far a consumer has come."""

    __tablename__ = "event_mark"

    consumer: Mapped[str]
    epoch: Mapped[int]
    position: Mapped[int]
    event_id: Mapped[UUID]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class DeadLetter(TenantModel):
    """An event that a consumer could not deal with."""

    __tablename__ = "event_dead_letter"

    consumer: Mapped[str]
    event_id: Mapped[UUID]
    epoch: Mapped[int]
    position: Mapped[int]
    type: Mapped[str]
    version: Mapped[int]
    occurred_at: Mapped[datetime]
    transaction_id: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    error: Mapped[str]
    attempts: Mapped[int]
    died_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @property
    def entry(self) -> Entry:
        return Entry(
            id=self.event_id,
            tenant_id=self.tenant_id,
            place=Place(self.epoch, self.position),
            kind=EventKind(self.type, self.version),
            occurred_at=self.occurred_at,
            transaction_id=int(self.transaction_id),
            payload=msgspec.json.encode(self.payload).decode(),
        )
