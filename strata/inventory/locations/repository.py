"""Reading warehouses, zones and bins. A bin always comes with its zone and warehouse, in one query."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, and_, select

from strata.inventory.locations.errors import Place, PlaceNotFoundError
from strata.inventory.locations.models import Bin, Warehouse, Zone
from strata.inventory.locations.schemas import BinFilter, BinOut, WarehouseOut, ZoneOut
from strata.platform.listing import Listing
from strata.platform.paging import AnySelect, Keyset, Page, Paging
from strata.tenancy.session import TenantReadSession

_WAREHOUSES: AnySelect = select(
    Warehouse.id,
    Warehouse.code,
    Warehouse.name,
    Warehouse.active,
    Warehouse.version,
    Warehouse.created_at,
    Warehouse.updated_at,
)
_ZONES: AnySelect = select(
    Zone.id,
    Zone.code,
    Zone.name,
    Zone.warehouse_id,
    Warehouse.code.label("warehouse"),
    Zone.active,
    Zone.version,
    Zone.created_at,
    Zone.updated_at,
).join(Warehouse, and_(Warehouse.tenant_id == Zone.tenant_id, Warehouse.id == Zone.warehouse_id))
_BINS: AnySelect = (
    select(
        Bin.id,
        Bin.code,
        Bin.zone_id,
        Zone.code.label("zone"),
        Zone.warehouse_id,
        Warehouse.code.label("warehouse"),
        Bin.active,
        Bin.version,
        Bin.created_at,
        Bin.updated_at,
    )
    .join(Zone, and_(Zone.tenant_id == Bin.tenant_id, Zone.id == Bin.zone_id))
    .join(Warehouse, and_(Warehouse.tenant_id == Zone.tenant_id, Warehouse.id == Zone.warehouse_id))
)

_WAREHOUSE_LIST = Listing(WarehouseOut, _WAREHOUSES, Keyset(Warehouse.code))
_ZONE_LIST = Listing(ZoneOut, _ZONES, Keyset(Warehouse.code, Zone.code))
_BIN_LIST = Listing(BinOut, _BINS, Keyset(Bin.code))

T = TypeVar("T", WarehouseOut, ZoneOut, BinOut)


async def list_warehouses(
    session: TenantReadSession, paging: Paging, *, active: bool | None = None
) -> Page[WarehouseOut]:
    conditions = [] if active is None else [Warehouse.active.is_(active)]
    return await _WAREHOUSE_LIST.page(session, paging, *conditions)


async def list_zones(
    session: TenantReadSession, paging: Paging, *, warehouse: str | None = None, active: bool | None = None
) -> Page[ZoneOut]:
    conditions: list[ColumnElement[bool]] = [] if active is None else [Zone.active.is_(active)]
    if warehouse is not None:
        conditions.append(Warehouse.code == warehouse)
    return await _ZONE_LIST.page(session, paging, *conditions)


async def list_bins(
    session: TenantReadSession,
    paging: Paging,
    wanted: BinFilter = BinFilter(),  # noqa: B008 - frozen
) -> Page[BinOut]:
    return await _BIN_LIST.page(session, paging, *_bin_conditions(wanted))


def _bin_conditions(wanted: BinFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.warehouse is not None:
        yield Warehouse.code == wanted.warehouse
    if wanted.zone is not None:
        yield Zone.code == wanted.zone
    if wanted.active is not None:
        yield Bin.active.is_(wanted.active)
    if wanted.q:
        yield Bin.code.icontains(wanted.q, autoescape=True)


async def warehouse_by_id(session: TenantReadSession, warehouse_id: UUID) -> WarehouseOut:
    return _found(await _WAREHOUSE_LIST.one(session, Warehouse.id == warehouse_id), Place.WAREHOUSE, warehouse_id)


async def zone_by_id(session: TenantReadSession, zone_id: UUID) -> ZoneOut:
    return _found(await _ZONE_LIST.one(session, Zone.id == zone_id), Place.ZONE, zone_id)


async def bin_by_id(session: TenantReadSession, bin_id: UUID) -> BinOut:
    return _found(await _BIN_LIST.one(session, Bin.id == bin_id), Place.BIN, bin_id)


async def bin_by_code(session: TenantReadSession, code: str) -> BinOut:
    return _found(await _BIN_LIST.one(session, Bin.code == code), Place.BIN, code)


def _found(place: T | None, kind: Place, name: object) -> T:
    if place is None:
        raise PlaceNotFoundError(kind, name)
    return place
