"""Looks after thresholds whenever stock has moved."""

from __future__ import annotations

from collections.abc import Sequence

from strata.inventory.alerts.repository import judge
from strata.inventory.events import StockMoved
from strata.tenancy.events.consumers import TenantConsumer
from strata.tenancy.events.types import Delivery
from strata.tenancy.session import TenantSession


async def _handle(session: TenantSession, deliveries: Sequence[Delivery]) -> None:
    moved = {
        change.product_id
        for delivery in deliveries
        if isinstance(delivery.event, StockMoved)
        for change in delivery.event.changes
    }
    if moved:
        await judge(session, list(moved))


CONSUMER = TenantConsumer("inventory.low-stock", (StockMoved,), _handle)
