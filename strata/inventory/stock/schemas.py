from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

import msgspec


class StockOut(msgspec.Struct, frozen=True):
    sku: str
    name: str
    bin: str
    zone: str
    warehouse: str
    batch: str
    expires_on: date | None
    on_hand: int
    unit: str
    product_id: UUID
    updated_at: datetime


class StockFilter(msgspec.Struct, frozen=True):
    sku: str | None = None
    bin: str | None = None
    warehouse: str | None = None
    q: str | None = None
    """Part of the SKU or the name."""
    in_stock: bool | None = None
    """True: only where something lies."""


class LedgerLineOut(msgspec.Struct, frozen=True):
    id: UUID
    movement_id: UUID
    kind: str
    reference: str | None
    sku: str
    bin: str
    batch: str
    quantity: int
    """Signed: what this movement added."""
    on_hand: int
    """Of this product, bin and batch, after the movement."""
    sequence: int
    occurred_at: datetime
    created_at: datetime
    created_by: str


class LedgerFilter(msgspec.Struct, frozen=True):
    sku: str | None = None
    bin: str | None = None
    movement_id: UUID | None = None
