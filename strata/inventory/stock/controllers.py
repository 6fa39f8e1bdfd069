from __future__ import annotations

from uuid import UUID

from litestar import Controller, Response, get

from strata.identity.permissions import Permission, requires
from strata.inventory.request_parameters import (
    CursorParameter,
    FieldsParameter,
    IfNoneMatchHeader,
    LimitParameter,
    SearchParameter,
    TextParameter,
)
from strata.inventory.resources import Resource
from strata.inventory.stock import repository
from strata.inventory.stock.schemas import LedgerFilter, LedgerLineOut, StockFilter, StockOut
from strata.platform.paging import DEFAULT_LIMIT, Page, Paging
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants

_STOCK = Resource("stock", StockOut)
_LEDGER = Resource("ledger", LedgerLineOut)


class StockController(Controller):
    path = "/stock"
    tags = ("Stock",)

    @get("/", summary="What lies where, by SKU, bin and batch", opt=requires(Permission.STOCK_READ))
    async def list_stock(
        self,
        context: TenantContext,
        tenants: Tenants,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
        sku: TextParameter = None,
        bin: TextParameter = None,  # noqa: A002 - the parameter's name in the API
        warehouse: TextParameter = None,
        q: SearchParameter = None,
        in_stock: bool | None = None,
        fields: FieldsParameter = None,
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[Page[StockOut]]:
        wanted = StockFilter(sku=sku, bin=bin, warehouse=warehouse, q=q, in_stock=in_stock)
        async with tenants.reading(context) as session:
            page = await repository.list_stock(session, Paging(limit, cursor, fields), wanted)
        return _STOCK.page(page, if_none_match)


class LedgerController(Controller):
    path = "/ledger"
    tags = ("Stock",)

    @get("/", summary="Every change of stock, the newest first", opt=requires(Permission.MOVEMENTS_READ))
    async def list_ledger(
        self,
        context: TenantContext,
        tenants: Tenants,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
        sku: TextParameter = None,
        bin: TextParameter = None,  # noqa: A002 - the parameter's name in the API
        movement_id: UUID | None = None,
        fields: FieldsParameter = None,
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[Page[LedgerLineOut]]:
        wanted = LedgerFilter(sku=sku, bin=bin, movement_id=movement_id)
        async with tenants.reading(context) as session:
            page = await repository.list_ledger(session, Paging(limit, cursor, fields), wanted)
        return _LEDGER.page(page, if_none_match)
