from __future__ import annotations

from litestar import Controller, get

from strata.identity.permissions import Permission, requires
from strata.inventory.aggregates import repository
from strata.inventory.aggregates.repository import WarehouseStockFilter, WarehouseStockOut
from strata.inventory.request_parameters import CursorParameter, LimitParameter, TextParameter
from strata.platform.paging import DEFAULT_LIMIT, Page, Paging
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants


class WarehouseStockController(Controller):
    path = "/stock/by-warehouse"
    tags = ("Stock",)

    @get("/", summary="How much lies in which warehouse, by SKU", opt=requires(Permission.STOCK_READ))
    async def list_by_warehouse(
        self,
        context: TenantContext,
        tenants: Tenants,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
        sku: TextParameter = None,
        warehouse: TextParameter = None,
    ) -> Page[WarehouseStockOut]:
        """Kept from the movements' events, a moment behind them; /stock has every balance as it is now."""
        wanted = WarehouseStockFilter(sku=sku, warehouse=warehouse)
        async with tenants.reading(context) as session:
            return await repository.list_by_warehouse(session, Paging(limit, cursor), wanted)
