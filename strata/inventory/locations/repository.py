"""Reading warehouses, zones and bins. A bin always comes with its zone and warehouse, in one query."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, select

from strata.inventory.locations.errors import Place, PlaceNotFoundError
from strata.inventory.locations.models import Bin, Warehouse, Zone
from strata.inventory.locations.schemas import BinFilter, BinOut, WarehouseOut, ZoneOut
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

_WAREHOUSE_ORDER = Keyset(Warehouse.code)
_ZONE_ORDER = Keyset(Warehouse.code, Zone.code)
_BIN_ORDER = Keyset(Bin.code)


async def list_warehouses(
    session: TenantReadSession, paging: Paging, *, active: bool | None = None
) -> Page[WarehouseOut]:
    statement = _WAREHOUSES
    if active is not None:
        statement = statement.where(Warehouse.active.is_(active))
    rows = (await session.execute(_WAREHOUSE_ORDER.select_page(statement, paging))).all()
    return _WAREHOUSE_ORDER.page(rows, paging, item=lambda row: WarehouseOut(*row), position=lambda row: (row.code,))


async def list_zones(
    session: TenantReadSession, paging: Paging, *, warehouse: str | None = None, active: bool | None = None
) -> Page[ZoneOut]:
    statement = _ZONES
    if warehouse is not None:
        statement = statement.where(Warehouse.code == warehouse)
    if active is not None:
        statement = statement.where(Zone.active.is_(active))
    rows = (await session.execute(_ZONE_ORDER.select_page(statement, paging))).all()
    return _ZONE_ORDER.page(
        rows, paging, item=lambda row: ZoneOut(*row), position=lambda row: (row.warehouse, row.code)
    )


async def list_bins(
    session: TenantReadSession,
    paging: Paging,
    wanted: BinFilter = BinFilter(),  # noqa: B008 - frozen
) -> Page[BinOut]:
    statement = _BINS
    if wanted.warehouse is not None:
        statement = statement.where(Warehouse.code == wanted.warehouse)
    if wanted.zone is not None:
        statement = statement.where(Zone.code == wanted.zone)
    if wanted.active is not None:
        statement = statement.where(Bin.active.is_(wanted.active))
    if wanted.q:
        statement = statement.where(Bin.code.icontains(wanted.q, autoescape=True))
    rows = (await session.execute(_BIN_ORDER.select_page(statement, paging))).all()
    return _BIN_ORDER.page(rows, paging, item=lambda row: BinOut(*row), position=lambda row: (row.code,))


async def warehouse_by_id(session: TenantReadSession, warehouse_id: UUID) -> WarehouseOut:
    return WarehouseOut(
        *await _one(session, _WAREHOUSES.where(Warehouse.id == warehouse_id), Place.WAREHOUSE, warehouse_id)
    )


async def zone_by_id(session: TenantReadSession, zone_id: UUID) -> ZoneOut:
    return ZoneOut(*await _one(session, _ZONES.where(Zone.id == zone_id), Place.ZONE, zone_id))


async def bin_by_id(session: TenantReadSession, bin_id: UUID) -> BinOut:
    return BinOut(*await _one(session, _BINS.where(Bin.id == bin_id), Place.BIN, bin_id))


async def bin_by_code(session: TenantReadSession, code: str) -> BinOut:
    return BinOut(*await _one(session, _BINS.where(Bin.code == code), Place.BIN, code))


async def _one(session: TenantReadSession, statement: AnySelect, place: Place, name: object) -> Row[*tuple[Any, ...]]:
    row = (await session.execute(statement)).one_or_none()
    if row is None:
        raise PlaceNotFoundError(place, name)
    return row
