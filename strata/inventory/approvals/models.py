from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from strata.tenancy.scoping import TenantModel


class RequestState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    """Posted, in the same transaction."""
    REJECTED = "rejected"


class MovementRequest(TenantModel):
    """A movement that waits for somebody else who may approve it."""

    __tablename__ = "movement_request"

    state: Mapped[str] = mapped_column(default=RequestState.PENDING, server_default=text("'pending'"))
    document: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """The movement as it was asked for."""
    reason: Mapped[str]
    """Why it needs approval."""
    requested_by: Mapped[str]
    requested_at: Mapped[datetime] = mapped_column(server_default=func.now())
    decided_by: Mapped[str | None]
    decided_at: Mapped[datetime | None]
    note: Mapped[str | None]
    movement_id: Mapped[UUID | None]
