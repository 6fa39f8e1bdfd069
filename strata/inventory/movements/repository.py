from __future__ import annotations

from uuid import UUID

from sqlalchemy import and_, select

from strata.inventory.locations.models import Bin
from strata.inventory.movements.errors import MovementNotFoundError
from strata.inventory.movements.models import Movement
from strata.inventory.movements.outcomes import PostedLine, PostedMovement
from strata.inventory.movements.schemas import MovementFilter, MovementOut
from strata.inventory.products.models import Product
from strata.inventory.stock.models import StockLedgerLine
from strata.platform.paging import AnySelect, Keyset, Page, Paging
from strata.tenancy.session import TenantReadSession

_HEADS: AnySelect = select(
    Movement.id,
    Movement.kind,
    Movement.reference,
    Movement.reason,
    Movement.note,
    Movement.occurred_at,
    Movement.created_at,
    Movement.created_by,
    Movement.reverses_id,
)
_LINES: AnySelect = (
    select(
        Product.sku,
        Bin.code,
        StockLedgerLine.batch,
        StockLedgerLine.quantity,
        StockLedgerLine.on_hand_after,
        StockLedgerLine.sequence,
    )
    .select_from(StockLedgerLine)
    .join(Product, and_(Product.tenant_id == StockLedgerLine.tenant_id, Product.id == StockLedgerLine.product_id))
    .join(Bin, and_(Bin.tenant_id == StockLedgerLine.tenant_id, Bin.id == StockLedgerLine.bin_id))
    .order_by(StockLedgerLine.id)
)
_ORDER = Keyset(Movement.id, descending=True)


async def list_movements(
    session: TenantReadSession,
    paging: Paging,
    wanted: MovementFilter = MovementFilter(),  # noqa: B008 - frozen
) -> Page[MovementOut]:
    """The newest first."""
    statement = _HEADS
    if wanted.kind is not None:
        statement = statement.where(Movement.kind == wanted.kind)
    if wanted.reference is not None:
        statement = statement.where(Movement.reference == wanted.reference)
    rows = (await session.execute(_ORDER.select_page(statement, paging))).all()
    return _ORDER.page(rows, paging, item=lambda row: MovementOut(*row), position=lambda row: (row.id,))


async def movement_by_id(session: TenantReadSession, movement_id: UUID) -> PostedMovement:
    """With its lines, as they were answered when it was posted."""
    head = (await session.execute(_HEADS.where(Movement.id == movement_id))).one_or_none()
    if head is None:
        raise MovementNotFoundError(movement_id)
    lines = (await session.execute(_LINES.where(StockLedgerLine.movement_id == movement_id))).all()
    return PostedMovement(**head._asdict(), lines=[PostedLine(*line) for line in lines])
