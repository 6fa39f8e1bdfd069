"""Stock by product: what the first page shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, and_, func, or_, select, true

from strata.inventory.custom.values import Entity, having
from strata.inventory.locations.models import Bin, Warehouse, Zone
from strata.inventory.products.models import Product
from strata.inventory.stock.models import StockBalance
from strata.platform.paging import AnySelect, Keyset, Page, Paging
from strata.tenancy.session import TenantReadSession

_ORDER = Keyset(Product.sku)


class ProductStock(msgspec.Struct, frozen=True):
    id: UUID
    sku: str
    name: str
    unit: str
    active: bool
    on_hand: int
    bins: int
    """In how many of them something lies."""


class OverviewFilter(msgspec.Struct, frozen=True):
    q: str | None = None
    """Part of the SKU or the name, or a whole barcode."""
    warehouse: str | None = None
    """Its code: products that lie there or have lain there, and how much of them there."""
    custom: Mapping[str, str] = MappingProxyType({})
    """Values of custom fields, by key."""


async def stock_by_product(session: TenantReadSession, paging: Paging, wanted: OverviewFilter) -> Page[ProductStock]:
    """The page first, then the sums: the planner would rather add up everything there is before it takes fifty."""
    products: AnySelect = select(
        Product.tenant_id, Product.id, Product.sku, Product.name, Product.unit, Product.active
    ).where(*_conditions(wanted), *having(session, Entity.PRODUCT, Product.id, wanted.custom))
    page = _ORDER.select_page(products, paging).subquery("page")
    here = (
        _there(
            select(
                func.coalesce(func.sum(StockBalance.on_hand), 0).label("on_hand"),
                func.count(StockBalance.bin_id.distinct()).filter(StockBalance.on_hand > 0).label("bins"),
            ),
            wanted.warehouse,
        )
        .where(StockBalance.tenant_id == page.c.tenant_id, StockBalance.product_id == page.c.id)
        .lateral()
    )
    shown: AnySelect = select(
        page.c.id, page.c.sku, page.c.name, page.c.unit, page.c.active, here.c.on_hand, here.c.bins
    )
    rows = (await session.execute(shown.join_from(page, here, true()).order_by(page.c.sku))).all()
    return _ORDER.page(rows, paging, item=lambda row: ProductStock(*row), position=lambda row: (row.sku,))


def _conditions(wanted: OverviewFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.warehouse is not None:
        balances = _there(select(StockBalance.id), wanted.warehouse)
        yield balances.where(
            StockBalance.tenant_id == Product.tenant_id, StockBalance.product_id == Product.id
        ).exists()
    if wanted.q:
        yield or_(
            Product.sku.icontains(wanted.q, autoescape=True),
            Product.name.icontains(wanted.q, autoescape=True),
            Product.barcode == wanted.q,
        )


def _there(balances: AnySelect, warehouse: str | None) -> AnySelect:
    """Of the balances, those that lie in the warehouse; None: anywhere."""
    if warehouse is None:
        return balances
    return (
        balances.join(Bin, and_(Bin.tenant_id == StockBalance.tenant_id, Bin.id == StockBalance.bin_id))
        .join(Zone, and_(Zone.tenant_id == Bin.tenant_id, Zone.id == Bin.zone_id))
        .join(Warehouse, and_(Warehouse.tenant_id == Zone.tenant_id, Warehouse.id == Zone.warehouse_id))
        .where(Warehouse.code == warehouse)
    )
