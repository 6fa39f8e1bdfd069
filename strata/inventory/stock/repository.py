"""What lies where, and how it came to be so."""

from __future__ import annotations

from sqlalchemy import and_, func, or_, select

from strata.inventory.locations.models import Bin, Warehouse, Zone
from strata.inventory.movements.models import Movement
from strata.inventory.products.models import Product
from strata.inventory.stock.models import StockBalance, StockLedgerLine
from strata.inventory.stock.schemas import LedgerFilter, LedgerLineOut, StockFilter, StockOut
from strata.platform.fields import FieldSelection
from strata.platform.paging import AnySelect, Keyset, Page, Paging
from strata.tenancy.session import TenantReadSession

STOCK_FIELDS = FieldSelection(StockOut)

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
_STOCK_ORDER = Keyset(Product.sku, Bin.code, StockBalance.batch)

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
_LEDGER_ORDER = Keyset(StockLedgerLine.id, descending=True)


async def list_stock(
    session: TenantReadSession,
    paging: Paging,
    wanted: StockFilter = StockFilter(),  # noqa: B008 - frozen
) -> Page[StockOut]:
    """By SKU, bin and batch; balances that have come down to nothing included unless `in_stock`."""
    statement = _STOCK
    if wanted.sku is not None:
        statement = statement.where(Product.sku == wanted.sku)
    if wanted.bin is not None:
        statement = statement.where(Bin.code == wanted.bin)
    if wanted.warehouse is not None:
        statement = statement.where(Warehouse.code == wanted.warehouse)
    if wanted.q:
        statement = statement.where(
            or_(Product.sku.icontains(wanted.q, autoescape=True), Product.name.icontains(wanted.q, autoescape=True))
        )
    if wanted.in_stock:
        statement = statement.where(StockBalance.on_hand > 0)
    rows = (await session.execute(_STOCK_ORDER.select_page(statement, paging))).all()
    return _STOCK_ORDER.page(
        rows, paging, item=lambda row: StockOut(*row), position=lambda row: (row.sku, row.bin, row.batch)
    )


async def list_ledger(
    session: TenantReadSession,
    paging: Paging,
    wanted: LedgerFilter = LedgerFilter(),  # noqa: B008 - frozen
) -> Page[LedgerLineOut]:
    """The newest first."""
    statement = _LEDGER
    if wanted.sku is not None:
        statement = statement.where(Product.sku == wanted.sku)
    if wanted.bin is not None:
        statement = statement.where(Bin.code == wanted.bin)
    if wanted.movement_id is not None:
        statement = statement.where(StockLedgerLine.movement_id == wanted.movement_id)
    rows = (await session.execute(_LEDGER_ORDER.select_page(statement, paging))).all()
    return _LEDGER_ORDER.page(rows, paging, item=lambda row: LedgerLineOut(*row), position=lambda row: (row.id,))


async def on_hand_of(session: TenantReadSession, sku: str) -> int:
    """Of one product, in all bins and batches."""
    total = await session.scalar(
        select(func.sum(StockBalance.on_hand))
        .join(Product, and_(Product.tenant_id == StockBalance.tenant_id, Product.id == StockBalance.product_id))
        .where(Product.sku == sku)
    )
    return int(total or 0)
