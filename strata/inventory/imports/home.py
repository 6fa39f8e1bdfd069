"""The bin that an import works in, made when it is not there."""

from __future__ import annotations

from sqlalchemy import select

from strata.inventory.imports.errors import BinInactiveError
from strata.inventory.imports.mapping import MovementPart
from strata.inventory.locations.models import Bin, Warehouse, Zone
from strata.inventory.locations.schemas import BinIn, WarehouseIn, ZoneIn
from strata.inventory.locations.service import create_bin, create_warehouse, create_zone
from strata.tenancy.session import TenantSession


async def ensure_bin(session: TenantSession, place: MovementPart, *, location_limit: int | None) -> None:
    """A bin's code is unique in the tenant: one that exists is used wherever it stands."""
    active = await session.scalar(select(Bin.active).where(Bin.code == place.bin))
    if active is False:
        raise BinInactiveError(place.bin)
    if active:
        return
    warehouse_id = await session.scalar(select(Warehouse.id).where(Warehouse.code == place.warehouse))
    if warehouse_id is None:
        new_warehouse = WarehouseIn(code=place.warehouse, name=place.warehouse)
        warehouse_id = (await create_warehouse(session, new_warehouse)).id
    zone_id = await session.scalar(select(Zone.id).where(Zone.warehouse_id == warehouse_id, Zone.code == place.zone))
    if zone_id is None:
        new_zone = ZoneIn(warehouse_id=warehouse_id, code=place.zone, name=place.zone)
        zone_id = (await create_zone(session, new_zone)).id
    await create_bin(session, BinIn(zone_id=zone_id, code=place.bin), location_limit=location_limit)
