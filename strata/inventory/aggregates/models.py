from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.orm import Mapped, mapped_column

from strata.tenancy.scoping import TenantModel


class WarehouseStock(TenantModel):
    """How much of a product lies in a warehouse. Written by the consumer of this package, derived from the ledger."""

    __tablename__ = "stock_by_warehouse"

    product_id: Mapped[UUID]
    warehouse_id: Mapped[UUID]
    on_hand: Mapped[int]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WarehouseStockBasis(TenantModel):
    """The snapshot in which those rows were last made from the ledger."""

    __tablename__ = "stock_by_warehouse_basis"

    name: Mapped[str]
    epoch: Mapped[int]
    snapshot: Mapped[str]
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())
