"""Emptying a server or a cell: it takes no new tenants, and a plan says where those there go, and why.

The plan is kept in the catalog. `Drains.due()` is what the migrator executes: one move of a tenant after the other, in the
plan's order. Nobody marks a move as done: it is, once the tenant's placement is another one.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from sqlalchemy import Select, delete, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from strata.platform.errors import ConflictError
from strata.tenancy.catalog.audit import record
from strata.tenancy.catalog.registry import Registry
from strata.tenancy.catalog.tables import (
    CellRow,
    DrainKind,
    DrainMoveRow,
    DrainRow,
    PlacementRow,
    ServerRow,
    TenantRow,
)
from strata.tenancy.model import CellKind, CellState, TenantStatus, Tier

if TYPE_CHECKING:
    from collections.abc import Iterable

_LIVING = (TenantStatus.ACTIVE, TenantStatus.READ_ONLY, TenantStatus.SUSPENDED)


class PlannedMove(msgspec.Struct, frozen=True):
    tenant_id: UUID
    slug: str
    tier: Tier
    from_cell: str
    to_server: str | None
    """None: nothing has room; `reason` says what to do."""
    to_cell: str | None
    """None with a server: a database of its own is made there."""
    reason: str


class DrainPlan(msgspec.Struct, frozen=True):
    kind: DrainKind
    subject: str
    planned_at: datetime
    actor: str
    moves: tuple[PlannedMove, ...]
    """Those still to be made."""

    @property
    def without_a_place(self) -> int:
        return sum(move.to_server is None for move in self.moves)


class Leaving(msgspec.Struct, frozen=True):
    """A tenant that has to go, and what its new place must be like."""

    id: UUID
    slug: str
    tier: Tier
    plan: str
    region: str
    pinned: bool
    cell: str


class Place(msgspec.Struct):
    """A shared cell, or a server as the place of dedicated databases (`cell` is None); `taken` rises as one plans."""

    server: str
    cell: str | None
    region: str
    plans: tuple[str, ...] | None
    capacity: int | None
    taken: int

    def takes(self, tenant: Leaving) -> bool:
        return (
            (self.cell is None) is (tenant.tier is Tier.DEDICATED)
            and (self.capacity is None or self.taken < self.capacity)
            and (self.plans is None or tenant.plan in self.plans)
            and (not tenant.pinned or self.region == tenant.region)
        )

    def rank(self, tenant: Leaving) -> tuple[bool, bool, float, str]:
        """Its own region first, then what is kept for its plan, then the emptiest."""
        share = self.taken / self.capacity if self.capacity else float(self.taken)
        return self.region != tenant.region, self.plans is None, share, self.cell or self.server


def planned(tenants: Iterable[Leaving], places: list[Place]) -> list[PlannedMove]:
    return [_move(tenant, places) for tenant in tenants]


def _move(tenant: Leaving, places: list[Place]) -> PlannedMove:
    fitting = [place for place in places if place.takes(tenant)]
    if not fitting:
        where = f" in region {tenant.region}, to which it is pinned," if tenant.pinned else ""
        what = "server" if tenant.tier is Tier.DEDICATED else "cell"
        reason = f"No open {what}{where} has room for plan {tenant.plan}: add one, and plan again."
        return PlannedMove(tenant.id, tenant.slug, tenant.tier, tenant.cell, None, None, reason)
    place = min(fitting, key=lambda each: each.rank(tenant))
    reason = _because(tenant, place)
    place.taken += 1
    return PlannedMove(tenant.id, tenant.slug, tenant.tier, tenant.cell, place.server, place.cell, reason)


def _because(tenant: Leaving, place: Place) -> str:
    told = f"the emptiest with room ({place.taken} of {place.capacity or 'any number'})"
    if place.plans is not None:
        told += f", kept for plan {tenant.plan}"
    if tenant.pinned:
        return f"{told}, in region {place.region}, to which the tenant is pinned"
    if place.region == tenant.region:
        return f"{told}, in the same region {place.region}"
    return f"{told}; region {tenant.region} has none, and the tenant is not pinned to it"


class Drains:
    def __init__(self, catalog: AsyncEngine) -> None:
        self._sessions = async_sessionmaker(catalog, expire_on_commit=False)

    async def begin(self, kind: DrainKind, subject: str, actor: str) -> DrainPlan:
        """Take no new tenants there and plan where the others go. Again: plan anew, as things are now."""
        async with self._sessions.begin() as session:
            await _set_draining(session, kind, subject, draining=True)
            leaving = await _leaving(session, kind, subject)
            await session.execute(delete(DrainRow).where(DrainRow.kind == kind, DrainRow.subject == subject))
            moves = planned(leaving, await _places(session, kind, subject))
            drain = DrainRow(kind=kind, subject=subject, actor=actor)
            session.add(drain)
            await session.flush()
            session.add_all(
                DrainMoveRow(
                    drain_id=drain.id,
                    tenant_id=move.tenant_id,
                    position=position,
                    from_cell=move.from_cell,
                    to_server=move.to_server,
                    to_cell=move.to_cell,
                    reason=move.reason,
                )
                for position, move in enumerate(moves)
            )
            record(session, actor, f"{kind}.drain", subject, detail={"moves": len(moves)})
        return await self.due(kind, subject)

    async def end(self, kind: DrainKind, subject: str, actor: str) -> None:
        """Take new tenants again and forget the plan; what has moved stays where it is."""
        async with self._sessions.begin() as session:
            await _set_draining(session, kind, subject, draining=False)
            await session.execute(delete(DrainRow).where(DrainRow.kind == kind, DrainRow.subject == subject))
            record(session, actor, f"{kind}.undrain", subject)

    async def due(self, kind: DrainKind, subject: str) -> DrainPlan:
        """The stored plan without the moves that have been made and the tenants that are gone.

        For the migrator: move each to `to_cell`, or with none, to a new dedicated database on `to_server`, on the tier it
        has. One without a server cannot be moved yet. Before each, look whether the place still has room (as placing does,
        under the cell's row lock): a plan reserves nothing.
        """
        async with self._sessions() as session:
            drain = await session.scalar(select(DrainRow).where(DrainRow.kind == kind, DrainRow.subject == subject))
            if drain is None:
                message = f"There is no plan for {kind.value} «{subject}»: strata {kind.value} drain makes one."
                raise ConflictError(message)
            rows = await session.execute(
                select(DrainMoveRow, TenantRow.slug, PlacementRow.tier)
                .join(TenantRow, TenantRow.id == DrainMoveRow.tenant_id)
                .join(PlacementRow, PlacementRow.tenant_id == TenantRow.id)
                .join(CellRow, CellRow.id == PlacementRow.cell_id)
                .where(DrainMoveRow.drain_id == drain.id, CellRow.name == DrainMoveRow.from_cell)
                .order_by(DrainMoveRow.position)
            )
            moves = tuple(
                PlannedMove(row.tenant_id, slug, Tier(tier), row.from_cell, row.to_server, row.to_cell, row.reason)
                for row, slug, tier in rows
            )
        return DrainPlan(kind, subject, drain.planned_at, drain.actor, moves)


async def _set_draining(session: AsyncSession, kind: DrainKind, subject: str, *, draining: bool) -> None:
    """Locks the row, so that two who drain the same plan one after the other."""
    if kind is DrainKind.SERVER:
        server = await Registry.server_row(session, subject)
        await session.refresh(server, with_for_update=True)
        server.draining = draining
        return
    cell = await Registry.cell_row(session, subject)
    await session.refresh(cell, with_for_update=True)
    if cell.state == CellState.BUILDING:
        message = f"Cell «{subject}» is still being built; run strata cell add again to finish it."
        raise ConflictError(message)
    cell.state = CellState.DRAINING if draining else CellState.OPEN


async def _leaving(session: AsyncSession, kind: DrainKind, subject: str) -> list[Leaving]:
    rows = await session.execute(
        select(TenantRow, PlacementRow.tier, CellRow)
        .join(PlacementRow, PlacementRow.tenant_id == TenantRow.id)
        .join(CellRow, CellRow.id == PlacementRow.cell_id)
        .join(ServerRow, ServerRow.id == CellRow.server_id)
        .where((ServerRow if kind is DrainKind.SERVER else CellRow).name == subject, TenantRow.status.in_(_LIVING))
        .order_by(TenantRow.slug)
    )
    return [
        Leaving(
            id=tenant.id,
            slug=tenant.slug,
            tier=Tier(tier),
            plan=tenant.plan,
            region=tenant.region or cell.region,
            pinned=tenant.region is not None,
            cell=cell.name,
        )
        for tenant, tier, cell in rows
    ]


async def _places(session: AsyncSession, kind: DrainKind, subject: str) -> list[Place]:
    """Open cells and servers, with those counted in whom other plans send there."""
    to_cells = await _promised(session, select(DrainMoveRow.to_cell).where(DrainMoveRow.to_cell.is_not(None)))
    to_servers = await _promised(session, select(DrainMoveRow.to_server).where(DrainMoveRow.to_cell.is_(None)))
    placed = select(func.count()).where(PlacementRow.cell_id == CellRow.id).correlate(CellRow).scalar_subquery()
    cells = await session.execute(
        select(CellRow, ServerRow.name, placed)
        .join(ServerRow, ServerRow.id == CellRow.server_id)
        .where(CellRow.kind == CellKind.SHARED, CellRow.state == CellState.OPEN, ServerRow.draining.is_(False))
    )
    places = [
        Place(server, cell.name, cell.region, _plans(cell), cell.capacity, taken + to_cells.get(cell.name, 0))
        for cell, server, taken in cells
    ]
    dedicated = (
        select(func.count())
        .where(CellRow.server_id == ServerRow.id, CellRow.kind == CellKind.DEDICATED)
        .correlate(ServerRow)
        .scalar_subquery()
    )
    # A database of its own that is drained alone goes to another server, too.
    own = select(CellRow.server_id).where(CellRow.name == subject) if kind is DrainKind.CELL else None
    servers = select(ServerRow, dedicated).where(ServerRow.draining.is_(False))
    if own is not None:
        servers = servers.where(ServerRow.id.not_in(own))
    return places + [
        Place(row.name, None, row.region, _plans(row), row.capacity, taken + to_servers.get(row.name, 0))
        for row, taken in (await session.execute(servers))
    ]


async def _promised(session: AsyncSession, destinations: Select[str | None]) -> dict[str, int]:
    """How many tenants the plans that are kept send to each destination, and that are not there yet."""
    pending = (
        destinations.join(PlacementRow, PlacementRow.tenant_id == DrainMoveRow.tenant_id)
        .join(CellRow, CellRow.id == PlacementRow.cell_id)
        .where(CellRow.name == DrainMoveRow.from_cell)
    )
    counts: dict[str, int] = {}
    for name in await session.scalars(pending):
        if name is not None:
            counts[name] = counts.get(name, 0) + 1
    return counts


def _plans(row: CellRow | ServerRow) -> tuple[str, ...] | None:
    return None if row.plans is None else tuple(row.plans)
