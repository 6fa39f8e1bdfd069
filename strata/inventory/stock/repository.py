"""What lies where, and how it came to be so."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import ColumnElement, and_, func, or_, select

from strata.inventory.locations.models import Bin, Warehouse, Zone
from strata.inventory.movements.models import Movement
from strata.inventory.products.models import Product
from strata.inventory.stock.models import StockBalance, StockLedgerLine
from strata.inventory.stock.schemas import LedgerFilter, LedgerLineOut, StockFilter, StockOut
from strata.platform.listing import Listing
from strata.platform.paging import AnySelect, Keyset, Page, Paging
from strata.tenancy.session import TenantReadSession

_STOCK: AnySelect = (
    select(
        Product.sku,
        Product.name,
        Bin.code.label("bin"),
        Zone.code.label("zone"),
        Warehouse.code.label("warehouse"),
        StockBalance.batch,
        StockBalance.expires_on,
        StockBalance.on_hand,
        Product.unit,
        StockBalance.product_id,
        StockBalance.updated_at,
    )
    .select_from(StockBalance)
    .join(Product, and_(Product.tenant_id == StockBalance.tenant_id, Product.id == StockBalance.product_id))
    .join(Bin, and_(Bin.tenant_id == StockBalance.tenant_id, Bin.id == StockBalance.bin_id))
    .join(Zone, and_(Zone.tenant_id == Bin.tenant_id, Zone.id == Bin.zone_id))
    .join(Warehouse, and_(Warehouse.tenant_id == Zone.tenant_id, Warehouse.id == Zone.warehouse_id))
)
_STOCK_LIST = Listing(StockOut, _STOCK, Keyset(Product.sku, Bin.code, StockBalance.batch))

_LEDGER: AnySelect = (
    select(
        StockLedgerLine.id,
        StockLedgerLine.movement_id,
        Movement.kind,
        Movement.reference,
        Product.sku,
        Bin.code.label("bin"),
        StockLedgerLine.batch,
        StockLedgerLine.quantity,
        StockLedgerLine.on_hand_after,
        StockLedgerLine.sequence,
        Movement.occurred_at,
        StockLedgerLine.created_at,
        Movement.created_by,
    )
    .select_from(StockLedgerLine)
    .join(Movement, and_(Movement.tenant_id == StockLedgerLine.tenant_id, Movement.id == StockLedgerLine.movement_id))
    .join(Product, and_(Product.tenant_id == StockLedgerLine.tenant_id, Product.id == StockLedgerLine.product_id))
    .join(Bin, and_(Bin.tenant_id == StockLedgerLine.tenant_id, Bin.id == StockLedgerLine.bin_id))
)
# Ids begin with the time they were made at, and rise within one statement too.
_LEDGER_LIST = Listing(LedgerLineOut, _LEDGER, Keyset(StockLedgerLine.id, descending=True))


async def list_stock(
    session: TenantReadSession,
    paging: Paging,
    wanted: StockFilter = StockFilter(),  # noqa: B008 - frozen
) -> Page[StockOut]:
    """By SKU, bin and batch; balances that have come down to nothing included unless `in_stock`."""
    return await _STOCK_LIST.page(session, paging, *_stock_conditions(wanted))


def _stock_conditions(wanted: StockFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.sku is not None:
        yield Product.sku == wanted.sku
    if wanted.bin is not None:
        yield Bin.code == wanted.bin
    if wanted.warehouse is not None:
        yield Warehouse.code == wanted.warehouse
    if wanted.q:
        yield or_(Product.sku.icontains(wanted.q, autoescape=True), Product.name.icontains(wanted.q, autoescape=True))
    if wanted.in_stock:
        yield StockBalance.on_hand > 0


async def list_ledger(
    session: TenantReadSession,
    paging: Paging,
    wanted: LedgerFilter = LedgerFilter(),  # noqa: B008 - frozen
) -> Page[LedgerLineOut]:
    """The newest first."""
    return await _LEDGER_LIST.page(session, paging, *_ledger_conditions(wanted))


def _ledger_conditions(wanted: LedgerFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.sku is not None:
        yield Product.sku == wanted.sku
    if wanted.bin is not None:
        yield Bin.code == wanted.bin
    if wanted.movement_id is not None:
        yield StockLedgerLine.movement_id == wanted.movement_id


async def on_hand_of(session: TenantReadSession, sku: str) -> int:
    """Of one product, in all bins and batches."""
    total = await session.scalar(
        select(func.sum(StockBalance.on_hand))
        .join(Product, and_(Product.tenant_id == StockBalance.tenant_id, Product.id == StockBalance.product_id))
        .where(Product.sku == sku)
    )
    return int(total or 0)
