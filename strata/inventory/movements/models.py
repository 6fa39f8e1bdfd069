from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from strata.tenancy.scoping import TenantModel


class MovementKind(StrEnum):
    RECEIVE = "receive"
    TRANSFER = "transfer"
    PICK = "pick"
    ADJUST = "adjust"
    COUNT = "count"
    REVERSAL = "reversal"
    """Made by reversing a movement, never posted as such."""


class Movement(TenantModel):
    """The head of a change of stock; its lines are in the ledger. Append-only."""

    __tablename__ = "movement"

    kind: Mapped[str]
    reference: Mapped[str | None]
    reason: Mapped[str | None]
    note: Mapped[str | None]
    occurred_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str]
    reverses_id: Mapped[UUID | None]
    custom: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
