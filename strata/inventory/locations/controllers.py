from __future__ import annotations

from typing import Annotated, TypeVar
from uuid import UUID

from litestar import Controller, Response, get, patch, post
from litestar.openapi.spec import Example
from litestar.params import Body

from strata.identity.permissions import Permission, requires
from strata.inventory.idempotency import REPLAYED, IdempotencyKeyHeader, once, request_key
from strata.inventory.locations import repository, service
from strata.inventory.locations.schemas import (
    BinFilter,
    BinIn,
    BinOut,
    BinPatch,
    PlacePatch,
    WarehouseIn,
    WarehouseOut,
    ZoneIn,
    ZoneOut,
)
from strata.inventory.request_parameters import (
    API_PREFIX,
    CursorParameter,
    IfMatchHeader,
    LimitParameter,
    SearchParameter,
    TextParameter,
)
from strata.platform.etags import etag
from strata.platform.paging import DEFAULT_LIMIT, Page, Paging
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants

T = TypeVar("T", WarehouseOut, ZoneOut, BinOut)

_SOME_ID = "0197a000-0000-7000-8000-000000000001"
_WAREHOUSE = Example(summary="A warehouse", value={"code": "HAM", "name": "Hamburg"})
_ZONE = Example(summary="A zone", value={"warehouse_id": _SOME_ID, "code": "PICK", "name": "Picking shelves"})
_BIN = Example(summary="A bin", value={"zone_id": _SOME_ID, "code": "HAM-A-01-1"})
_OFF = Example(summary="Out of use", value={"active": False})


def _answer(place: T, *, status: int = 200, headers: dict[str, str] | None = None) -> Response[T]:
    return Response(place, status_code=status, headers={"ETag": etag(place.version), **(headers or {})})


def _created(place: T, collection: str, *, replayed: bool) -> Response[T]:
    headers = {"Location": f"{API_PREFIX}/{collection}/{place.id}", **(REPLAYED if replayed else {})}
    return _answer(place, status=201, headers=headers)


class WarehouseController(Controller):
    path = "/warehouses"
    tags = ("Locations",)

    @get("/", summary="List warehouses", opt=requires(Permission.LOCATIONS_READ))
    async def list_warehouses(
        self,
        context: TenantContext,
        tenants: Tenants,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
        active: bool | None = None,
    ) -> Page[WarehouseOut]:
        async with tenants.reading(context) as session:
            return await repository.list_warehouses(session, Paging(limit, cursor), active=active)

    @get("/{warehouse_id:uuid}", summary="One warehouse", opt=requires(Permission.LOCATIONS_READ))
    async def get_warehouse(
        self, context: TenantContext, tenants: Tenants, warehouse_id: UUID
    ) -> Response[WarehouseOut]:
        async with tenants.reading(context) as session:
            return _answer(await repository.warehouse_by_id(session, warehouse_id))

    @post("/", summary="Create a warehouse", opt=requires(Permission.LOCATIONS_WRITE))
    async def create_warehouse(
        self,
        context: TenantContext,
        tenants: Tenants,
        data: Annotated[WarehouseIn, Body(examples=[_WAREHOUSE])],
        idempotency_key: IdempotencyKeyHeader = None,
    ) -> Response[WarehouseOut]:
        key = request_key(idempotency_key, "POST /warehouses", data)
        async with tenants.transaction(context) as session:
            place, replayed = await once(session, key, WarehouseOut, lambda: service.create_warehouse(session, data))
        return _created(place, "warehouses", replayed=replayed)

    @patch("/{warehouse_id:uuid}", summary="Change a warehouse", opt=requires(Permission.LOCATIONS_WRITE))
    async def change_warehouse(
        self,
        context: TenantContext,
        tenants: Tenants,
        warehouse_id: UUID,
        data: Annotated[PlacePatch, Body(examples=[_OFF])],
        if_match: IfMatchHeader = None,
    ) -> Response[WarehouseOut]:
        async with tenants.transaction(context) as session:
            return _answer(await service.change_warehouse(session, warehouse_id, data, if_match=if_match))


class ZoneController(Controller):
    path = "/zones"
    tags = ("Locations",)

    @get("/", summary="List zones by warehouse and code", opt=requires(Permission.LOCATIONS_READ))
    async def list_zones(
        self,
        context: TenantContext,
        tenants: Tenants,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
        warehouse: TextParameter = None,
        active: bool | None = None,
    ) -> Page[ZoneOut]:
        async with tenants.reading(context) as session:
            return await repository.list_zones(session, Paging(limit, cursor), warehouse=warehouse, active=active)

    @get("/{zone_id:uuid}", summary="One zone", opt=requires(Permission.LOCATIONS_READ))
    async def get_zone(self, context: TenantContext, tenants: Tenants, zone_id: UUID) -> Response[ZoneOut]:
        async with tenants.reading(context) as session:
            return _answer(await repository.zone_by_id(session, zone_id))

    @post("/", summary="Create a zone", opt=requires(Permission.LOCATIONS_WRITE))
    async def create_zone(
        self,
        context: TenantContext,
        tenants: Tenants,
        data: Annotated[ZoneIn, Body(examples=[_ZONE])],
        idempotency_key: IdempotencyKeyHeader = None,
    ) -> Response[ZoneOut]:
        key = request_key(idempotency_key, "POST /zones", data)
        async with tenants.transaction(context) as session:
            place, replayed = await once(session, key, ZoneOut, lambda: service.create_zone(session, data))
        return _created(place, "zones", replayed=replayed)

    @patch("/{zone_id:uuid}", summary="Change a zone", opt=requires(Permission.LOCATIONS_WRITE))
    async def change_zone(
        self,
        context: TenantContext,
        tenants: Tenants,
        zone_id: UUID,
        data: Annotated[PlacePatch, Body(examples=[_OFF])],
        if_match: IfMatchHeader = None,
    ) -> Response[ZoneOut]:
        async with tenants.transaction(context) as session:
            return _answer(await service.change_zone(session, zone_id, data, if_match=if_match))


class BinController(Controller):
    path = "/bins"
    tags = ("Locations",)

    @get("/", summary="List bins by code", opt=requires(Permission.LOCATIONS_READ))
    async def list_bins(
        self,
        context: TenantContext,
        tenants: Tenants,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
        warehouse: TextParameter = None,
        zone: TextParameter = None,
        active: bool | None = None,
        q: SearchParameter = None,
    ) -> Page[BinOut]:
        wanted = BinFilter(warehouse=warehouse, zone=zone, active=active, q=q)
        async with tenants.reading(context) as session:
            return await repository.list_bins(session, Paging(limit, cursor), wanted)

    @get("/{bin_id:uuid}", summary="One bin", opt=requires(Permission.LOCATIONS_READ))
    async def get_bin(self, context: TenantContext, tenants: Tenants, bin_id: UUID) -> Response[BinOut]:
        async with tenants.reading(context) as session:
            return _answer(await repository.bin_by_id(session, bin_id))

    @post("/", summary="Create a bin", opt=requires(Permission.LOCATIONS_WRITE))
    async def create_bin(
        self,
        context: TenantContext,
        tenants: Tenants,
        data: Annotated[BinIn, Body(examples=[_BIN])],
        idempotency_key: IdempotencyKeyHeader = None,
    ) -> Response[BinOut]:
        key = request_key(idempotency_key, "POST /bins", data)
        limit = context.limits.locations
        async with tenants.transaction(context) as session:
            place, replayed = await once(
                session, key, BinOut, lambda: service.create_bin(session, data, location_limit=limit)
            )
        return _created(place, "bins", replayed=replayed)

    @patch("/{bin_id:uuid}", summary="Change a bin", opt=requires(Permission.LOCATIONS_WRITE))
    async def change_bin(
        self,
        context: TenantContext,
        tenants: Tenants,
        bin_id: UUID,
        data: Annotated[BinPatch, Body(examples=[_OFF])],
        if_match: IfMatchHeader = None,
    ) -> Response[BinOut]:
        limit = context.limits.locations
        async with tenants.transaction(context) as session:
            return _answer(await service.change_bin(session, bin_id, data, if_match=if_match, location_limit=limit))
