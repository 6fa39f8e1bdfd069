from __future__ import annotations

from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, and_, select

from strata.inventory.custom.values import Entity, having
from strata.inventory.locations.models import Bin
from strata.inventory.movements.errors import MovementNotFoundError
from strata.inventory.movements.models import Movement
from strata.inventory.movements.outcomes import PostedLine, PostedMovement
from strata.inventory.movements.schemas import MovementFilter, MovementOut
from strata.inventory.products.models import Product
from strata.inventory.stock.models import StockLedgerLine
from strata.platform.listing import Listing
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
    Movement.custom,
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
_LIST = Listing(MovementOut, _HEADS, Keyset(Movement.id, descending=True))


async def list_movements(
    session: TenantReadSession,
    paging: Paging,
    wanted: MovementFilter = MovementFilter(),  # noqa: B008 - frozen
) -> Page[MovementOut]:
    """The newest first."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.kind is not None:
        conditions.append(Movement.kind == wanted.kind)
    if wanted.reference is not None:
        conditions.append(Movement.reference == wanted.reference)
    conditions += having(session, Entity.MOVEMENT, Movement.id, wanted.custom)
    return await _LIST.page(session, paging, *conditions)


async def movement_by_id(session: TenantReadSession, movement_id: UUID) -> PostedMovement:
    """With its lines, as they were answered when it was posted."""
    head = await _LIST.one(session, Movement.id == movement_id)
    if head is None:
        raise MovementNotFoundError(movement_id)
    lines = (await session.execute(_LINES.where(StockLedgerLine.movement_id == movement_id))).all()
    return PostedMovement(**msgspec.structs.asdict(head), lines=[PostedLine(*line) for line in lines])


async def reversal_of(session: TenantReadSession, movement_id: UUID) -> UUID | None:
    return await session.scalar(select(Movement.id).where(Movement.reverses_id == movement_id))
