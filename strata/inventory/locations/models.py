"""Warehouse, zone, bin. Stock lies in bins; the two above them are for people to find their way."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column

from strata.tenancy.scoping import TenantModel, Timestamped


class Versioned:
    active: Mapped[bool] = mapped_column(default=True, server_default=text("true"), sort_order=80)
    version: Mapped[int] = mapped_column(default=1, server_default=text("1"), sort_order=81)


class Warehouse(Versioned, Timestamped, TenantModel):
    __tablename__ = "warehouse"

    code: Mapped[str]
    name: Mapped[str]


class Zone(Versioned, Timestamped, TenantModel):
    __tablename__ = "zone"

    warehouse_id: Mapped[UUID]
    code: Mapped[str]
    name: Mapped[str]


class Bin(Versioned, Timestamped, TenantModel):
    __tablename__ = "bin"

    zone_id: Mapped[UUID]
    code: Mapped[str]
    """Unique in the tenant: it is what a scanner reads."""
