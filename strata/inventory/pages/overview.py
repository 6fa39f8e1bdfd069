"""Stock by product: what the first page shows."""

from __future__ import annotations

from uuid import UUID

import msgspec
from sqlalchemy import and_, func, or_, select, true

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


async def stock_by_product(session: TenantReadSession, paging: Paging, wanted: OverviewFilter) -> Page[ProductStock]:
    """Sums are taken for the products of the page alone: the limit is met in the order of the index on SKU."""
    here = _balances(wanted.warehouse).lateral()
    statement: AnySelect = (
        select(
            Product.id,
            Product.sku,
            Product.name,
            Product.unit,
            Product.active,
            func.coalesce(here.c.on_hand, 0),
            here.c.bins,
        )
        .select_from(Product)
        .join(here, true())
    )
    if wanted.warehouse is not None:
        statement = statement.where(here.c.balances > 0)
    if wanted.q:
        statement = statement.where(
            or_(
                Product.sku.icontains(wanted.q, autoescape=True),
                Product.name.icontains(wanted.q, autoescape=True),
                Product.barcode == wanted.q,
            )
        )
    rows = (await session.execute(_ORDER.select_page(statement, paging))).all()
    return _ORDER.page(rows, paging, item=lambda row: ProductStock(*row), position=lambda row: (row.sku,))


def _balances(warehouse: str | None) -> AnySelect:
    lying = StockBalance.on_hand > 0
    statement: AnySelect = (
        select(
            func.sum(StockBalance.on_hand).label("on_hand"),
            func.count(StockBalance.bin_id.distinct()).filter(lying).label("bins"),
            func.count().label("balances"),
        )
        .where(StockBalance.tenant_id == Product.tenant_id, StockBalance.product_id == Product.id)
        .correlate(Product)
    )
    if warehouse is None:
        return statement
    return (
        statement.join(Bin, and_(Bin.tenant_id == StockBalance.tenant_id, Bin.id == StockBalance.bin_id))
        .join(Zone, and_(Zone.tenant_id == Bin.tenant_id, Zone.id == Bin.zone_id))
        .join(Warehouse, and_(Warehouse.tenant_id == Zone.tenant_id, Warehouse.id == Zone.warehouse_id))
        .where(Warehouse.code == warehouse)
    )
