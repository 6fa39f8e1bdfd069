from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import Request, Response, get

from strata.identity.permissions import Permission, requires
from strata.inventory.custom.values import Entity, labelled, wanted_values
from strata.inventory.locations.repository import list_warehouses
from strata.inventory.pages.movement_draft import kinds_for
from strata.inventory.pages.overview import OverviewFilter, stock_by_product
from strata.inventory.pages.surroundings import PAGES, frame_for, why_read_only
from strata.inventory.products.repository import product_by_id
from strata.inventory.request_parameters import CursorParameter, SearchParameter, TextParameter
from strata.inventory.settings import custom_fields_in
from strata.inventory.stock.repository import list_ledger, list_stock, on_hand_of
from strata.inventory.stock.schemas import LedgerFilter, StockFilter
from strata.platform.paging import MAX_LIMIT, Paging
from strata.platform.tokens import Claims
from strata.platform.web.pages import wants_part
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants

_LEDGER_PER_PAGE = 25


@get("/stock", opt=requires(Permission.STOCK_READ), include_in_schema=False)
async def stock(
    request: Request[Any, Any, Any],
    context: TenantContext,
    tenants: Tenants,
    claims: Claims,
    q: SearchParameter = None,
    warehouse: TextParameter = None,
    cursor: CursorParameter = None,
) -> Response[str]:
    custom = {key: text for key, value in wanted_values(request).items() if (text := value.strip())}
    wanted = OverviewFilter((q or "").strip() or None, warehouse or None, custom)
    async with tenants.reading(context) as session:
        page = await stock_by_product(session, Paging(cursor=cursor or None), wanted)
        warehouses = [] if wants_part(request) else (await list_warehouses(session, Paging(MAX_LIMIT))).items
    template = "inventory/stock_rows.html" if wants_part(request) else "inventory/stock.html"
    return PAGES.page(
        template,
        request,
        frame_for(context, claims),
        page=page,
        warehouses=warehouses,
        q=wanted.q or "",
        warehouse=wanted.warehouse or "",
        custom=custom,
        fields=custom_fields_in(context).product,
        read_only=why_read_only(context),
    )


@get("/products/{product_id:uuid}", opt=requires(Permission.STOCK_READ), include_in_schema=False)
async def product(
    request: Request[Any, Any, Any],
    context: TenantContext,
    tenants: Tenants,
    claims: Claims,
    product_id: UUID,
    cursor: CursorParameter = None,
) -> Response[str]:
    """Details, what lies in which bin, and the ledger, the newest line first."""
    history, balances, total = None, None, 0
    async with tenants.reading(context) as session:
        found = await product_by_id(session, product_id)
        custom = labelled(session, Entity.PRODUCT, found.custom)
        if Permission.MOVEMENTS_READ in claims.permissions:
            paging = Paging(_LEDGER_PER_PAGE, cursor or None)
            history = await list_ledger(session, paging, LedgerFilter(sku=found.sku))
        if not wants_part(request):
            balances = await list_stock(session, Paging(MAX_LIMIT), StockFilter(sku=found.sku))
            total = await on_hand_of(session, found.sku)
    return PAGES.page(
        "inventory/ledger_rows.html" if wants_part(request) else "inventory/product.html",
        request,
        frame_for(context, claims),
        product=found,
        custom=custom,
        balances=balances,
        total=total,
        history=history,
        kinds=kinds_for(context),
        may_move=Permission.MOVEMENTS_WRITE in claims.permissions,
        read_only=why_read_only(context),
    )
