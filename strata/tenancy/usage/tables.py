"""Usage in the catalog."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Date, ForeignKey, Index, LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from strata.tenancy.catalog.tables import CatalogModel


class UsageCounterRow(CatalogModel):
    """How much a tenant has used of something in a month."""

    __tablename__ = "usage_counter"
    __table_args__ = (
        CheckConstraint("period ~ '^[0-9]{4}-[0-9]{2}$'", name="period_month"),
        CheckConstraint("amount >= 0", name="amount_not_negative"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"), primary_key=True)
    period: Mapped[str] = mapped_column(primary_key=True)
    """A month in UTC, as 2026-03."""
    meter: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[int]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class UsageDayRow(CatalogModel):
    """The same by day in UTC."""

    __tablename__ = "usage_day"
    __table_args__ = (
        CheckConstraint("amount >= 0", name="amount_not_negative"),
        Index("ix_usage_day_meter_day", "meter", "day"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    meter: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[int]


class UsageUserRow(CatalogModel):
    """Somebody who was active in a month, as a digest that names nobody."""

    __tablename__ = "usage_user"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"), primary_key=True)
    period: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)


class UsageBatchRow(CatalogModel):
    """A batch that has been counted: the same one again is not."""

    __tablename__ = "usage_batch"
    __table_args__ = (Index("ix_usage_batch_counted_at", "counted_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    counted_at: Mapped[datetime] = mapped_column(server_default=func.now())
