"""Making and changing warehouses, zones and bins.

An active bin stands in an active zone of an active warehouse, so the write path of stock looks at the bin alone. Each
check locks the parent's row (FOR SHARE when something active comes below it, FOR UPDATE when it is deactivated), so
that the rule also holds between two who act at once.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

import msgspec
from sqlalchemy import exists, select
from sqlalchemy.exc import IntegrityError

from strata.inventory import quotas
from strata.inventory.changes import apply_patch
from strata.inventory.events import BinRezoned
from strata.inventory.locations.errors import (
    Place,
    PlaceInUseError,
    PlaceNotFoundError,
    PlaceTakenError,
    UnknownParentError,
)
from strata.inventory.locations.models import Bin, Warehouse, Zone
from strata.inventory.locations.repository import bin_by_id, warehouse_by_id, zone_by_id
from strata.inventory.locations.schemas import (
    BinIn,
    BinOut,
    BinPatch,
    PlacePatch,
    WarehouseIn,
    WarehouseOut,
    ZoneIn,
    ZoneOut,
)
from strata.inventory.quotas import Quota
from strata.inventory.stock.models import StockBalance
from strata.platform.etags import check_if_match
from strata.tenancy.audit import record
from strata.tenancy.events.emitting import emit
from strata.tenancy.session import TenantSession

P = TypeVar("P", Warehouse, Zone, Bin)
_PLACES: dict[type, Place] = {Warehouse: Place.WAREHOUSE, Zone: Place.ZONE, Bin: Place.BIN}


async def create_warehouse(session: TenantSession, data: WarehouseIn) -> WarehouseOut:
    warehouse = Warehouse(code=data.code, name=data.name)
    await _insert(session, warehouse, data.code)
    return await warehouse_by_id(session, warehouse.id)


async def create_zone(session: TenantSession, data: ZoneIn) -> ZoneOut:
    await _active_parent(session, Warehouse, data.warehouse_id)
    zone = Zone(warehouse_id=data.warehouse_id, code=data.code, name=data.name)
    await _insert(session, zone, data.code)
    return await zone_by_id(session, zone.id)


async def create_bin(session: TenantSession, data: BinIn, *, location_limit: int | None) -> BinOut:
    await _active_parent(session, Zone, data.zone_id)
    row = Bin(zone_id=data.zone_id, code=data.code, active=data.active)
    await _insert(session, row, data.code)
    if data.active:
        await quotas.take(session, Quota.LOCATIONS, location_limit)
    return await bin_by_id(session, row.id)


async def change_warehouse(
    session: TenantSession, warehouse_id: UUID, patch: PlacePatch, *, if_match: str | None
) -> WarehouseOut:
    warehouse = await _locked(session, Warehouse, warehouse_id)
    check_if_match(if_match, warehouse.version)
    if patch.active is False and warehouse.active:
        await _refuse_if(
            session, exists().where(Zone.warehouse_id == warehouse_id, Zone.active), Place.WAREHOUSE, "active zones"
        )
    await _apply(session, warehouse, patch)
    return await warehouse_by_id(session, warehouse_id)


async def change_zone(session: TenantSession, zone_id: UUID, patch: PlacePatch, *, if_match: str | None) -> ZoneOut:
    zone = await _locked(session, Zone, zone_id)
    check_if_match(if_match, zone.version)
    if patch.active is False and zone.active:
        await _refuse_if(session, exists().where(Bin.zone_id == zone_id, Bin.active), Place.ZONE, "active bins")
    if patch.active is True and not zone.active:
        await _active_parent(session, Warehouse, zone.warehouse_id)
    await _apply(session, zone, patch)
    return await zone_by_id(session, zone_id)


async def change_bin(
    session: TenantSession, bin_id: UUID, patch: BinPatch, *, if_match: str | None, location_limit: int | None
) -> BinOut:
    row = await _locked(session, Bin, bin_id)
    check_if_match(if_match, row.version)
    was_active = row.active
    if patch.active is False and was_active:
        await _refuse_if(
            session, exists().where(StockBalance.bin_id == bin_id, StockBalance.on_hand > 0), Place.BIN, "stock"
        )
    if patch.zone_id is not msgspec.UNSET or (patch.active is True and not was_active):
        zone_id = row.zone_id if patch.zone_id is msgspec.UNSET else patch.zone_id
        await _active_parent(session, Zone, zone_id)
    old_zone_id = row.zone_id
    await _apply(session, row, patch)
    if row.zone_id != old_zone_id:
        await emit(session, BinRezoned(bin_id, old_zone_id, row.zone_id))
    if row.active and not was_active:
        await quotas.take(session, Quota.LOCATIONS, location_limit)
    elif was_active and not row.active:
        await quotas.give_back(session, Quota.LOCATIONS)
    return await bin_by_id(session, bin_id)


async def _insert(session: TenantSession, row: Warehouse | Zone | Bin, code: str) -> None:
    session.add(row)
    try:
        await session.flush()
    except IntegrityError as error:
        raise PlaceTakenError(_PLACES[type(row)], code) from error
    record(session, f"{_PLACES[type(row)]}.create", code, id=row.id)


async def _active_parent(session: TenantSession, model: type[Warehouse | Zone], parent_id: UUID) -> None:
    active = await session.scalar(select(model.active).where(model.id == parent_id).with_for_update(read=True))
    if not active:
        raise UnknownParentError(_PLACES[model])


async def _locked(session: TenantSession, model: type[P], place_id: UUID) -> P:
    row = await session.scalar(select(model).where(model.id == place_id).with_for_update())
    if row is None:
        raise PlaceNotFoundError(_PLACES[model], place_id)
    return row


async def _refuse_if(session: TenantSession, condition: object, place: Place, what: str) -> None:
    if await session.scalar(select(condition)):  # type: ignore[call-overload]
        raise PlaceInUseError(place, what)


async def _apply(session: TenantSession, row: Warehouse | Zone | Bin, patch: PlacePatch | BinPatch) -> None:
    code = row.code
    changed = apply_patch(row, patch)
    if changed:
        row.version += 1
        row.updated_at = datetime.now(UTC)
        new_code = row.code
        try:
            await session.flush()
        except IntegrityError as error:
            raise PlaceTakenError(_PLACES[type(row)], new_code) from error
        record(session, f"{_PLACES[type(row)]}.change", code, id=row.id, changes=changed)
