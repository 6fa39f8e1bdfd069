from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.orm import Mapped, mapped_column

from strata.tenancy.scoping import TenantModel, Timestamped


class StockThreshold(Timestamped, TenantModel):
    """Below `minimum` of the product, in all bins together, an alert opens."""

    __tablename__ = "stock_threshold"

    product_id: Mapped[UUID]
    minimum: Mapped[int]


class StockAlert(TenantModel):
    """One a product at a time."""

    __tablename__ = "stock_alert"

    product_id: Mapped[UUID]
    minimum: Mapped[int]
    on_hand: Mapped[int]
    """When it opened."""
    opened_at: Mapped[datetime] = mapped_column(server_default=func.now())
    closed_at: Mapped[datetime | None]
