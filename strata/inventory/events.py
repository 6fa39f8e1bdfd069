"""What the inventory tells. The schemas of these are published (docs/events): change none but as publishing.py allows."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

import msgspec

from strata.tenancy.events.types import Event, EventKind


class StockChange(msgspec.Struct, frozen=True):
    product_id: UUID
    sku: str
    bin_id: UUID
    bin: str
    batch: str
    quantity: int
    """Signed: what came here, over all movements of the event."""
    on_hand: int
    """Here, after them."""


class StockMoved(Event, frozen=True):
    """Movements were posted: one, or a batch of an import. Written by the database function post_movements."""

    kind: ClassVar = EventKind("stock.moved", 1)

    movements: int
    movement_id: UUID | None
    """Of the movement, when it is one."""
    movement_kind: str | None
    """receive, transfer, pick, adjust, count or reversal; likewise."""
    actor: str
    changes: list[StockChange]
    """By balance. A count that found what was expected changes none."""


class ProductFacts(msgspec.Struct, frozen=True):
    product_id: UUID
    sku: str
    name: str


class ProductCreated(Event, frozen=True):
    """Products are new: one, or those of an import's batch."""

    kind: ClassVar = EventKind("product.created", 1)

    products: list[ProductFacts]


class ProductChanged(Event, frozen=True):
    """A product is not what it was."""

    kind: ClassVar = EventKind("product.changed", 1)

    product_id: UUID
    sku: str
    name: str
    active: bool
    version: int


class ProductDeleted(Event, frozen=True):
    """A product that never moved is gone."""

    kind: ClassVar = EventKind("product.deleted", 1)

    product_id: UUID
    sku: str


class BinRezoned(Event, frozen=True):
    """A bin belongs to another zone now, and perhaps to another warehouse, with what lies in it."""

    kind: ClassVar = EventKind("bin.rezoned", 1)

    bin_id: UUID
    from_zone_id: UUID
    to_zone_id: UUID


class StockLow(Event, frozen=True):
    """Less of a product is left than its threshold: an alert is open."""

    kind: ClassVar = EventKind("stock.low", 1)

    alert_id: UUID
    product_id: UUID
    sku: str
    minimum: int
    on_hand: int


class StockRecovered(Event, frozen=True):
    """Enough of a product is there again, or nobody asks any more: its alert is closed."""

    kind: ClassVar = EventKind("stock.recovered", 1)

    alert_id: UUID
    product_id: UUID
    sku: str
    on_hand: int


EVENTS: tuple[type[Event], ...] = (
    StockMoved,
    ProductCreated,
    ProductChanged,
    ProductDeleted,
    BinRezoned,
    StockLow,
    StockRecovered,
)
