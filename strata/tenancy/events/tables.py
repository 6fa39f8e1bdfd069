"""What events leave in the catalog."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from strata.tenancy.catalog.tables import CatalogModel


class UsageMarkRow(CatalogModel):
    """The last event that has been counted."""

    __tablename__ = "usage_mark"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"), primary_key=True)
    epoch: Mapped[int]
    position: Mapped[int]
    event_id: Mapped[UUID]


class UsageReplayRow(CatalogModel):
    """Dead letters that were counted later, below the mark."""

    __tablename__ = "usage_replay"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"), primary_key=True)
    event_id: Mapped[UUID] = mapped_column(primary_key=True)


class OutboxRemainderRow(CatalogModel):
    """A cell that a tenant has left, until its outbox is known to hold nothing of that epoch. Written by a trigger."""

    __tablename__ = "outbox_remainder"
    __table_args__ = (Index("ix_outbox_remainder_cell_id", "cell_id"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    cell_id: Mapped[UUID] = mapped_column(ForeignKey("cell.id"))
    left_at: Mapped[datetime] = mapped_column(server_default=func.now())
