"""Where people ask: what a move would be, start one, tell one under way what they wish. A worker does the work.

This is the documented Python API of moves (docs/moving.md); command line, staff API and pages all go through it.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from strata.migrator.errors import MoveUnderWayError, NotFitError, UnknownMoveError, WishRefusedError
from strata.migrator.losses import Loss, can_be_accepted, loss_of, neither_is_there
from strata.migrator.models import ATTEMPTS, MoveRow
from strata.migrator.moves import Move, Moves, Place, append_event, as_move
from strata.migrator.phases import BEFORE_THE_FLIP, CANCELLABLE, FINISHED, Phase, Wish
from strata.migrator.preflight import Objection, objections_to, objections_to_server
from strata.migrator.sites import Sites
from strata.migrator.tables import describe
from strata.platform.errors import ConflictError, InvalidInputError
from strata.tenancy.catalog.audit import record
from strata.tenancy.catalog.registry import Registry
from strata.tenancy.catalog.tables import CellRow, PlacementRow, ServerRow, TenantRow
from strata.tenancy.errors import UnknownTenantError
from strata.tenancy.model import CellKind, Holder, TenantStatus, Tier, schema_for
from strata.tenancy.provisioning.exclusion import claim, schema_subject, tenant_subject
from strata.tenancy.provisioning.placing import choose_cell, choose_server

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from strata.platform.settings import MigratorSettings
    from strata.tenancy.provisioning.cells import CellBuilder

CHANNEL = "strata:moves"
"""On Redis: there is something for a worker to look at."""
_DAY_S = 24 * 3600
RETENTION_S = 2 * _DAY_S
MOST_RETENTION_S = 30 * _DAY_S
_MOVABLE = frozenset({TenantStatus.ACTIVE, TenantStatus.READ_ONLY, TenantStatus.SUSPENDED})


Along = Callable[["AsyncSession", Move], Awaitable[None]]


class Order(msgspec.Struct, frozen=True):
    """What somebody wants."""

    slug: str
    to: Tier
    cell: str | None = None
    """A shared cell by name; None: the best with room, and for a tier change within the cell, the one it is in."""
    server: str | None = None
    """For a dedicated database; None: the best with room."""
    hold: bool = False
    retention_s: int = RETENTION_S


class Plan(msgspec.Struct, frozen=True):
    """What would be done, and what stands against it."""

    slug: str
    source: Place
    target: Place
    server: str
    rows: int
    """The planner's estimate."""
    size_bytes: int
    steps: list[str]
    objections: list[str]
    passes: bool
    """Whether all that stands against it goes away by itself, when other moves have ended."""


class _Chosen(msgspec.Struct, frozen=True):
    tenant: TenantRow
    placement: PlacementRow
    source: Place
    target: Place
    server: ServerRow
    target_cell: CellRow | None
    """None: a dedicated one, to be made."""


class Desk:
    def __init__(
        self,
        moves: Moves,
        sites: Sites,
        cells: CellBuilder,
        settings: MigratorSettings,
        wake: Callable[[], Awaitable[None]],
    ) -> None:
        self.moves = moves
        self._sites = sites
        self._cells = cells
        self._settings = settings
        self._wake = wake

    async def find(self, name: str) -> Move:
        """By id or its beginning, or the latest of a tenant by slug; the latest of all when `name` is empty."""
        if name:
            return await self.moves.find(name)
        newest = await self.moves.newest(limit=1)
        if not newest:
            raise UnknownMoveError(name)
        return newest[0]

    async def plan(self, order: Order) -> Plan:
        """Look, and make nothing."""
        async with self.moves.writing() as session:
            chosen = await self._choose(session, order)
            draft = _draft(chosen, order)
            open_move = await session.scalar(
                select(MoveRow).where(MoveRow.tenant_id == draft.tenant_id, MoveRow.phase.not_in(FINISHED))
            )
        end = await self._sites.source(draft)
        objections = await objections_to(end, self._settings)
        if open_move is not None:
            objections.append(Objection(MoveUnderWayError(order.slug).detail, passes=_ends_by_itself(open_move)))
        async with end.admin() as connection:
            tables = (await describe(connection, end.home.schema_name)).tables
        if chosen.target_cell is not None and chosen.target.cell != chosen.source.cell:
            target = await self._sites.target(draft)
            async with target.admin() as connection:
                objections += await objections_to_server(connection, chosen.target.cell, self._settings)
        return Plan(
            slug=order.slug,
            source=chosen.source,
            target=chosen.target,
            server=chosen.server.name,
            rows=sum(table.estimated_rows for table in tables),
            size_bytes=sum(table.size_bytes for table in tables),
            steps=_steps(chosen, order),
            objections=[each.sentence for each in objections],
            passes=bool(objections) and all(each.passes for each in objections),
        )

    async def start(self, order: Order, actor: str, *, along: Along | None = None) -> Move:
        """Write the move down; a worker takes it from there. NotFitError, MoveUnderWayError, TenantBusyError.

        `along` writes in the same transaction what must be true with the move or not at all.
        """
        plan = await self.plan(order)
        if plan.objections:
            raise NotFitError(plan.objections, passes=plan.passes)
        try:
            async with self.moves.writing() as session:
                move = await self._write(session, order, actor)
                if along is not None:
                    await along(session, move)
        except IntegrityError as error:
            raise MoveUnderWayError(order.slug) from error
        await self._wake()
        return move

    async def _write(self, session: AsyncSession, order: Order, actor: str) -> Move:
        chosen = await self._choose(session, order)
        draft = _draft(chosen, order)
        target_cell = chosen.target.cell
        if chosen.target_cell is None:
            # Registered before it is made, as everything is.
            await self._cells.register(
                session, target_cell, chosen.server, CellKind.DEDICATED, region=chosen.server.region, capacity=1
            )
        row = MoveRow(
            tenant_id=chosen.tenant.id,
            attempt=await session.scalar(select(ATTEMPTS.next_value())) or 0,
            source_cell=chosen.source.cell,
            source_tier=chosen.source.tier,
            source_schema=chosen.source.schema_name,
            source_epoch=chosen.placement.epoch,
            target_cell=target_cell,
            target_server=chosen.server.name,
            target_tier=chosen.target.tier,
            target_schema=chosen.target.schema_name,
            hold=order.hold,
            retention_s=order.retention_s,
            started_by=actor,
        )
        session.add(row)
        await session.flush()
        await session.refresh(row)
        await claim(
            session,
            Holder.MOVE,
            str(row.id),
            [
                tenant_subject(row.tenant_id),
                schema_subject(row.source_cell, row.source_schema),
                schema_subject(row.target_cell, row.target_schema),
            ],
        )
        detail: dict[str, object] = {"from": str(draft.source), "to": str(draft.target), "move": str(row.id)}
        append_event(session, row, actor, "started", detail)
        record(session, actor, "tenant.move.start", order.slug, tenant_id=row.tenant_id, detail=detail)
        return as_move(row, order.slug)

    async def loss(self, move: Move) -> Loss | None:
        """What accepting it would give up; None: nothing of the move is lost."""
        return loss_of(move, await self.moves.events(move.id)) if can_be_accepted(move) else None

    async def ask(self, move_id: UUID, wish: Wish, actor: str) -> Move:
        """Tell a move under way what is wished; WishRefusedError where its phase does not allow it."""
        async with self.moves.writing() as session:
            found = (
                await session.execute(
                    select(MoveRow, TenantRow.slug)
                    .join(TenantRow, TenantRow.id == MoveRow.tenant_id)
                    .where(MoveRow.id == move_id)
                    .with_for_update(of=MoveRow)
                )
            ).one_or_none()
            if found is None:
                raise UnknownMoveError(str(move_id))
            row, slug = found
            _refuse_out_of_phase(as_move(row, slug), wish)
            # Told in the audit, of the move as it is now: whoever accepts a loss, or gives a tenant up, accepts this one.
            loss = await self.loss(as_move(row, slug)) if wish in {Wish.ACCEPT_LOSS, Wish.CANCEL} else None
            accepted: dict[str, object] = {} if loss is None else {"loss": msgspec.to_builtins(loss)}
            if wish is Wish.CUT_OVER:
                row.hold = False
            else:
                row.wish = wish
            row.not_before = None
            append_event(session, row, actor, f"asked to {wish.value}", accepted)
            detail: dict[str, object] = {"move": str(row.id), **accepted}
            record(session, actor, f"tenant.move.{wish.value}", slug, tenant_id=row.tenant_id, detail=detail)
            await session.flush()
            await session.refresh(row)
            move = as_move(row, slug)
        await self._wake()
        return move

    async def _choose(self, session: AsyncSession, order: Order) -> _Chosen:
        require_sense(order.to, cell=order.cell, server=order.server, retention_s=order.retention_s)
        found = (
            await session.execute(
                select(TenantRow, PlacementRow, CellRow, ServerRow)
                .join(PlacementRow, PlacementRow.tenant_id == TenantRow.id)
                .join(CellRow, CellRow.id == PlacementRow.cell_id)
                .join(ServerRow, ServerRow.id == CellRow.server_id)
                .where(TenantRow.slug == order.slug, TenantRow.status != TenantStatus.CLOSED)
            )
        ).one_or_none()
        if found is None:
            raise UnknownTenantError(order.slug)
        tenant, placement, cell, _ = found
        if TenantStatus(tenant.status) not in _MOVABLE:
            message = f"Tenant «{order.slug}» is {tenant.status}: it cannot be moved."
            raise ConflictError(message)
        source = Place(cell.name, Tier(placement.tier), placement.schema_name)
        schema = schema_for(order.to, tenant.id)
        if order.to is Tier.DEDICATED:
            server = (
                await Registry.server_row(session, order.server)
                if order.server
                else await choose_server(session, tenant.region, plan=tenant.plan)
            )
            name = _new_cell_name(tenant.id)
            return _Chosen(tenant, placement, source, Place(name, order.to, schema), server, None)
        target = await self._shared_cell(session, order, tenant, cell)
        _refuse_standing_still(source, Place(target.name, order.to, schema))
        server = await session.get_one(ServerRow, target.server_id)
        return _Chosen(tenant, placement, source, Place(target.name, order.to, schema), server, target)

    @staticmethod
    async def _shared_cell(session: AsyncSession, order: Order, tenant: TenantRow, cell: CellRow) -> CellRow:
        stays = cell.kind == CellKind.SHARED and order.cell in {None, cell.name}
        if stays:
            return cell
        return await choose_cell(session, tenant.region, order.cell, plan=tenant.plan)


def require_sense(to: Tier, *, cell: str | None, server: str | None, retention_s: int) -> None:
    """InvalidInputError where a part of what was said would be passed over: it would go where nobody meant it to."""
    if to is Tier.DEDICATED and cell is not None:
        message = f"A dedicated database is a cell of its own: name a server for it, if any, and not the cell {cell}."
    elif to is not Tier.DEDICATED and server is not None:
        message = f"The server {server} can be named for dedicated databases alone: name a shared cell on it, if any."
    elif not 0 <= retention_s <= MOST_RETENTION_S:
        message = f"A move can be rolled back for {MOST_RETENTION_S // _DAY_S} days at most: name a shorter retention."
    else:
        return
    raise InvalidInputError(message)


class SamePlaceError(ConflictError):
    code = "same-place"
    title = "The tenant is there already"


def _refuse_standing_still(source: Place, target: Place) -> None:
    if (source.cell, source.schema_name) == (target.cell, target.schema_name):
        message = f"The tenant is {source} already; name another tier, or another cell with --cell."
        raise SamePlaceError(message)


def _ends_by_itself(row: MoveRow) -> bool:
    """Soon, and without anybody's word."""
    waits = row.phase in {Phase.FAILED, Phase.RETAINING} and not (row.wish or row.retention_s == 0)
    return not waits and not (row.hold and Phase(row.phase) in CANCELLABLE)


def _refuse_out_of_phase(move: Move, wish: Wish) -> None:
    failed_before = move.phase is Phase.FAILED and move.failed_in in BEFORE_THE_FLIP
    allowed = {
        Wish.CUT_OVER: move.phase in CANCELLABLE,
        Wish.CANCEL: move.phase in CANCELLABLE | {Phase.CUTTING_OVER, Phase.CANCELLING}
        or failed_before
        or neither_is_there(move),
        Wish.ROLL_BACK: move.phase in {Phase.RETAINING, Phase.ROLLING_BACK},
        Wish.COMPLETE: move.phase in {Phase.RETAINING, Phase.COMPLETING},
        Wish.RETRY: not move.finished,
        Wish.ACCEPT_LOSS: can_be_accepted(move),
    }
    if allowed[wish]:
        return
    way_on = {
        Phase.RETAINING: f"strata migrate rollback {move.id}, or strata migrate complete {move.id}",
        Phase.FAILED: move.failure.next if move.failure is not None else f"strata migrate retry {move.id}",
    }.get(move.phase, f"strata migrate status {move.id}")
    message = f"A move that is {move.phase.value} cannot be asked to {wish.value}; what can be done: {way_on}."
    raise WishRefusedError(message, extra={"phase": move.phase.value})


def _new_cell_name(tenant_id: UUID) -> str:
    """A name that no cell has had before: processes keep a cell's pool and secret by its name, also after it has gone."""
    return f"dedicated-{tenant_id.hex[-12:]}-{secrets.token_hex(4)}"


def _draft(chosen: _Chosen, order: Order) -> Move:
    """The move as it would be, to look at both ends with; nothing of it is written."""
    row = MoveRow(
        id=chosen.tenant.id,
        tenant_id=chosen.tenant.id,
        phase=Phase.PENDING,
        attempt=0,
        number=0,
        source_cell=chosen.source.cell,
        source_tier=chosen.source.tier,
        source_schema=chosen.source.schema_name,
        source_epoch=chosen.placement.epoch,
        target_cell=chosen.target.cell,
        target_server=chosen.server.name,
        target_tier=chosen.target.tier,
        target_schema=chosen.target.schema_name,
        hold=order.hold,
        retention_s=order.retention_s,
        progress={},
        started_by="",
        created_at=chosen.tenant.created_at,
    )
    return as_move(row, order.slug)


def _steps(chosen: _Chosen, order: Order) -> list[str]:
    made = {
        Tier.SHARED: "nothing to make: the tables of the cell take the rows",
        Tier.SCHEMA: f"make schema and role {chosen.target.schema_name} in {chosen.target.cell}",
        Tier.DEDICATED: f"make a database as cell {chosen.target.cell} on {chosen.server.name}",
    }
    removed = {
        Tier.SHARED: f"delete the rows in {chosen.source.cell}, in small batches",
        Tier.SCHEMA: f"drop schema {chosen.source.schema_name} in {chosen.source.cell}",
        Tier.DEDICATED: f"drop the database of cell {chosen.source.cell}",
    }
    hours = order.retention_s / 3600
    return [
        made[chosen.target.tier],
        "copy every row in one snapshot, then build indexes and constraints",
        "apply what is written meanwhile, and compare every row",
        "wait for strata migrate cutover" if order.hold else "cut over: the tenant's requests wait some milliseconds",
        f"keep the old home up to date for {hours:g} h; strata migrate rollback goes back"
        if order.retention_s
        else "keep no way back",
        removed[chosen.source.tier],
    ]
