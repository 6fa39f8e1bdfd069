"""Keeps stock by warehouse from the movements' events, each counted once.

Deltas commute, so that nothing depends on when an event comes, and a dead letter may be tried again later. What cannot be
said as a delta is a bin that changes warehouse: then the rows are made anew from the ledger, and events that this has
seen already are passed over (basis.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select

from strata.inventory.aggregates import repository
from strata.inventory.events import BinRezoned, StockMoved
from strata.inventory.locations.models import Zone
from strata.tenancy.context import TenantContext
from strata.tenancy.events import marks
from strata.tenancy.events.consumers import TenantConsumer
from strata.tenancy.events.types import Delivery
from strata.tenancy.session import Tenants, TenantSession

NAME = "inventory.stock-by-warehouse"


async def _handle(session: TenantSession, deliveries: Sequence[Delivery]) -> None:
    if await _changes_warehouse(session, deliveries):
        await repository.make_from_ledger(session)
        return
    basis = await repository.basis(session)
    quantities: Counter[tuple[UUID, UUID]] = Counter()
    for delivery in deliveries:
        match delivery.event:
            case StockMoved(changes=changes) if basis is None or not basis.saw(delivery):
                for change in changes:
                    quantities[change.product_id, change.bin_id] += change.quantity
            case _:
                continue
    if quantities:
        await repository.add(session, quantities)


async def _changes_warehouse(session: TenantSession, deliveries: Sequence[Delivery]) -> bool:
    moves = [each.event for each in deliveries if isinstance(each.event, BinRezoned)]
    if not moves:
        return False
    zones = {zone for move in moves for zone in (move.from_zone_id, move.to_zone_id)}
    rows = await session.execute(select(Zone.id, Zone.warehouse_id).where(Zone.id.in_(zones)))
    warehouse_of = {row.id: row.warehouse_id for row in rows}
    return any(warehouse_of.get(move.from_zone_id) != warehouse_of.get(move.to_zone_id) for move in moves)


CONSUMER = TenantConsumer(NAME, (StockMoved, BinRezoned), _handle)


async def rebuild(tenants: Tenants, context: TenantContext) -> int:
    """Make the rows from the ledger, beside whatever goes on; returns how many were wrong."""
    async with tenants.transaction(context) as session:
        # The consumer waits here, so that no event is both in the ledger's sums and added to them.
        await marks.hold(session, NAME)
        return await repository.make_from_ledger(session)
