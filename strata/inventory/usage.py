"""What the inventory's events add to a tenant's usage."""

from __future__ import annotations

from collections.abc import Mapping

from strata.inventory.events import ProductCreated, StockMoved
from strata.tenancy.events.types import Event
from strata.tenancy.events.usage import Measure


def _stock_moved(event: Event) -> Mapping[str, int]:
    assert isinstance(event, StockMoved)  # noqa: S101 - what it is registered for
    return {"movements": event.movements, "stock-changes": len(event.changes)}


def _product_created(event: Event) -> Mapping[str, int]:
    assert isinstance(event, ProductCreated)  # noqa: S101 - as above
    return {"products-created": len(event.products)}


MEASURES: dict[type[Event], Measure] = {StockMoved: _stock_moved, ProductCreated: _product_created}
