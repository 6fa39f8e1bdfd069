from __future__ import annotations

from typing import Annotated
from uuid import UUID

from litestar import Controller, Response, get, patch, post
from litestar.openapi.spec import Example
from litestar.params import Body

from strata.identity.permissions import Permission, requires
from strata.inventory.idempotency import IdempotencyKeyHeader
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
    CursorParameter,
    FieldsParameter,
    IfMatchHeader,
    IfNoneMatchHeader,
    LimitParameter,
    SearchParameter,
    TextParameter,
)
from strata.inventory.resources import Resource
from strata.platform.paging import DEFAULT_LIMIT, Page, Paging
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants

WAREHOUSES = Resource("warehouses", WarehouseOut)
ZONES = Resource("zones", ZoneOut)
BINS = Resource("bins", BinOut)

_SOME_ID = "0197a000-0000-7000-8000-000000000001"
_WAREHOUSE = Example(summary="A warehouse", value={"code": "HAM", "name": "Hamburg"})
_ZONE = Example(summary="A zone", value={"warehouse_id": _SOME_ID, "code": "PICK", "name": "Picking shelves"})
_BIN = Example(summary="A bin", value={"zone_id": _SOME_ID, "code": "HAM-A-01-1"})
_OFF = Example(summary="Out of use", value={"active": False})


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
        fields: FieldsParameter = None,
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[Page[WarehouseOut]]:
        async with tenants.reading(context) as session:
            page = await repository.list_warehouses(session, Paging(limit, cursor, fields), active=active)
        return WAREHOUSES.page(page, if_none_match)

    @get("/{warehouse_id:uuid}", summary="One warehouse", opt=requires(Permission.LOCATIONS_READ))
    async def get_warehouse(
        self,
        context: TenantContext,
        tenants: Tenants,
        warehouse_id: UUID,
        fields: FieldsParameter = None,
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[WarehouseOut]:
        async with tenants.reading(context) as session:
            found = await repository.warehouse_by_id(session, warehouse_id)
        return WAREHOUSES.read(found, fields, if_none_match)

    @post("/", summary="Create a warehouse", opt=requires(Permission.LOCATIONS_WRITE))
    async def create_warehouse(
        self,
        context: TenantContext,
        tenants: Tenants,
        data: Annotated[WarehouseIn, Body(examples=[_WAREHOUSE])],
        idempotency_key: IdempotencyKeyHeader = None,
    ) -> Response[WarehouseOut]:
        return await WAREHOUSES.create(
            context, tenants, data, idempotency_key, lambda session: service.create_warehouse(session, data)
        )

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
            changed = await service.change_warehouse(session, warehouse_id, data, if_match=if_match)
        return WAREHOUSES.written(changed)


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
        fields: FieldsParameter = None,
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[Page[ZoneOut]]:
        async with tenants.reading(context) as session:
            page = await repository.list_zones(
                session, Paging(limit, cursor, fields), warehouse=warehouse, active=active
            )
        return ZONES.page(page, if_none_match)

    @get("/{zone_id:uuid}", summary="One zone", opt=requires(Permission.LOCATIONS_READ))
    async def get_zone(
        self,
        context: TenantContext,
        tenants: Tenants,
        zone_id: UUID,
        fields: FieldsParameter = None,
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[ZoneOut]:
        async with tenants.reading(context) as session:
            found = await repository.zone_by_id(session, zone_id)
        return ZONES.read(found, fields, if_none_match)

    @post("/", summary="Create a zone", opt=requires(Permission.LOCATIONS_WRITE))
    async def create_zone(
        self,
        context: TenantContext,
        tenants: Tenants,
        data: Annotated[ZoneIn, Body(examples=[_ZONE])],
        idempotency_key: IdempotencyKeyHeader = None,
    ) -> Response[ZoneOut]:
        return await ZONES.create(
            context, tenants, data, idempotency_key, lambda session: service.create_zone(session, data)
        )

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
            changed = await service.change_zone(session, zone_id, data, if_match=if_match)
        return ZONES.written(changed)


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
        fields: FieldsParameter = None,
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[Page[BinOut]]:
        wanted = BinFilter(warehouse=warehouse, zone=zone, active=active, q=q)
        async with tenants.reading(context) as session:
            page = await repository.list_bins(session, Paging(limit, cursor, fields), wanted)
        return BINS.page(page, if_none_match)

    @get("/{bin_id:uuid}", summary="One bin", opt=requires(Permission.LOCATIONS_READ))
    async def get_bin(
        self,
        context: TenantContext,
        tenants: Tenants,
        bin_id: UUID,
        fields: FieldsParameter = None,
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[BinOut]:
        async with tenants.reading(context) as session:
            found = await repository.bin_by_id(session, bin_id)
        return BINS.read(found, fields, if_none_match)

    @post("/", summary="Create a bin", opt=requires(Permission.LOCATIONS_WRITE))
    async def create_bin(
        self,
        context: TenantContext,
        tenants: Tenants,
        data: Annotated[BinIn, Body(examples=[_BIN])],
        idempotency_key: IdempotencyKeyHeader = None,
    ) -> Response[BinOut]:
        limit = context.limits.locations
        return await BINS.create(
            context,
            tenants,
            data,
            idempotency_key,
            lambda session: service.create_bin(session, data, location_limit=limit),
        )

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
            changed = await service.change_bin(session, bin_id, data, if_match=if_match, location_limit=limit)
        return BINS.written(changed)
