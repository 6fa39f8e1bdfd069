"""Where a new tenant is put: a cell or server of its region, open, with room, kept for its plan or for any."""

from __future__ import annotations

from sqlalchemy import Select, and_, any_, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.elements import ColumnElement

from strata.platform.errors import UnavailableError
from strata.tenancy.catalog.registry import Registry
from strata.tenancy.catalog.tables import CellRow, PlacementRow, ServerRow
from strata.tenancy.model import CellKind, CellState


class NoRoomError(UnavailableError):
    code = "no-room"
    title = "No cell has room"

    def __init__(self, kind: CellKind, region: str | None, plan: str | None = None) -> None:
        where = f" in region {region}" if region else ""
        whom = f" for plan {plan}" if plan else ""
        super().__init__(f"No open {kind.value} cell or server{where}{whom} has room; add one with strata cell add.")


async def choose_cell(
    session: AsyncSession,
    region: str | None,
    name: str | None = None,
    *,
    plan: str | None = None,
    but_not_on: str | None = None,
) -> CellRow:
    """An open shared cell with room, one kept for the plan before one for all, then the emptiest by share.

    Its row stays locked, so that racers cannot overfill it. `but_not_on`: a server to leave out.
    """
    tenants = select(func.count()).where(PlacementRow.cell_id == CellRow.id).correlate(CellRow).scalar_subquery()
    query = (
        _open_cells(region, plan)
        .where(tenants < CellRow.capacity)
        .order_by(CellRow.plans.is_(None), tenants * 1.0 / CellRow.capacity, CellRow.name)
        .limit(1)
        .with_for_update(of=CellRow)
    )
    if name is not None:
        await Registry.cell_row(session, name)
        query = query.where(CellRow.name == name)
    if but_not_on is not None:
        query = query.where(ServerRow.name != but_not_on)
    while True:
        row = await session.scalar(query)
        if row is None:
            raise NoRoomError(CellKind.SHARED, region, plan)
        # The query counted before it had the lock: whoever held it may have filled the cell.
        placed = await session.scalar(select(func.count()).where(PlacementRow.cell_id == row.id))
        if placed is not None and placed < row.capacity:
            return row


async def choose_server(
    session: AsyncSession, region: str | None, *, plan: str | None = None, but_not: str | None = None
) -> ServerRow:
    """Where a dedicated database is made: kept for the plan before for all, then the server with the fewest cells.

    Its row stays locked while it has a capacity, so that racers cannot overfill it.
    """
    cells = select(func.count()).where(CellRow.server_id == ServerRow.id).correlate(ServerRow).scalar_subquery()
    query = (
        select(ServerRow)
        .where(ServerRow.draining.is_(False), _takes(ServerRow.plans, plan))
        .order_by(ServerRow.plans.is_(None), cells, ServerRow.name)
    )
    if region is not None:
        query = query.where(ServerRow.region == region)
    if but_not is not None:
        query = query.where(ServerRow.name != but_not)
    for row in (await session.scalars(query)).all():
        if row.capacity is None or await _has_room(session, row):
            return row
    raise NoRoomError(CellKind.DEDICATED, region, plan)


async def _has_room(session: AsyncSession, server: ServerRow) -> bool:
    await session.refresh(server, ["capacity"], with_for_update=True)
    dedicated = await session.scalar(
        select(func.count()).where(CellRow.server_id == server.id, CellRow.kind == CellKind.DEDICATED)
    )
    return server.capacity is None or (dedicated or 0) < server.capacity


def _open_cells(region: str | None, plan: str | None) -> Select[CellRow]:
    query = (
        select(CellRow)
        .join(ServerRow, ServerRow.id == CellRow.server_id)
        .where(
            CellRow.kind == CellKind.SHARED,
            CellRow.state == CellState.OPEN,
            ServerRow.draining.is_(False),
            _takes(CellRow.plans, plan),
        )
    )
    return query if region is None else query.where(CellRow.region == region)


def _takes(plans: InstrumentedAttribute[list[str] | None], plan: str | None) -> ColumnElement[bool]:
    """A tenant whose plan is not known goes where all may go."""
    if plan is None:
        return plans.is_(None)
    return or_(plans.is_(None), and_(plans.is_not(None), literal(plan) == any_(plans)))
