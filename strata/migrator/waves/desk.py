"""Where people ask for waves: who would be in one, start it, pause, resume, retry, cancel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from sqlalchemy import Text, any_, cast, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from strata.migrator.desk import Desk, require_sense
from strata.migrator.errors import WishRefusedError
from strata.migrator.models import MoveRow
from strata.migrator.phases import CANCELLABLE, Phase, Wish
from strata.migrator.waves.models import ENDED, MemberState, Origin, WaveMemberRow, WaveRow, WaveState
from strata.migrator.waves.store import UnknownWaveError, Wave, Waves, tally
from strata.migrator.waves.window import Window
from strata.platform.errors import ConflictError, InvalidInputError
from strata.tenancy.catalog.audit import record
from strata.tenancy.catalog.registry import Registry
from strata.tenancy.catalog.tables import CellRow, DrainKind, PlacementRow, TenantRow
from strata.tenancy.model import TenantStatus, Tier
from strata.tenancy.plans import plan_named

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from strata.tenancy.provisioning.draining import DrainPlan

_LIVING = (TenantStatus.ACTIVE, TenantStatus.READ_ONLY, TenantStatus.SUSPENDED)
_DRAINS = {DrainKind.CELL: Origin.CELL_DRAIN, DrainKind.SERVER: Origin.SERVER_DRAIN}
PARALLEL = 4
MAX_FAILURES = 5


class Pace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    parallel: int = PARALLEL
    """Moves of the wave under way at once."""
    max_failures: int = MAX_FAILURES
    """At so many the wave stops: nothing more begins until somebody resumes it."""
    window: Window | None = None
    """Outside of it nothing begins; what is under way goes on."""
    retention_s: int = 0
    """Of each move. Every way back that is kept costs its cells a replication slot."""


class WaveOrder(msgspec.Struct, frozen=True):
    """Exactly one of `tenants`, `plan` and `from_cell`."""

    to: Tier
    tenants: tuple[str, ...] = ()
    plan: str | None = None
    from_cell: str | None = None
    cell: str | None = None
    """A shared cell by name; None: of the tenant's region, the best with room."""
    server: str | None = None
    """For dedicated databases; None: the best with room."""
    pace: Pace = Pace()


class Candidate(msgspec.Struct, frozen=True):
    tenant_id: UUID
    slug: str
    from_cell: str
    to_tier: Tier
    to_cell: str | None
    to_server: str | None
    leaves: bool = False
    objection: str | None = None
    """Why it cannot be begun at all, known before anything is tried."""


class WaveWish(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    """Also after it has stopped: the failures so far count no more."""
    RETRY = "retry"
    """Those that failed, again."""
    CANCEL = "cancel"
    """Nothing more begins; what is under way goes on."""
    CANCEL_ALL = "cancel-all"
    """What is under way and has not been cut over is given up too."""


_ALLOWED = {
    WaveWish.PAUSE: {WaveState.RUNNING},
    WaveWish.RESUME: {WaveState.PAUSED, WaveState.STOPPED},
    WaveWish.RETRY: frozenset(WaveState) - {WaveState.CANCELLED},
    WaveWish.CANCEL: frozenset(WaveState) - ENDED,
    # Also once nothing more begins: what had begun goes on.
    WaveWish.CANCEL_ALL: frozenset(WaveState) - {WaveState.FINISHED},
}


class WaveDesk:
    def __init__(self, waves: Waves, desk: Desk, wake: Callable[[], Awaitable[None]]) -> None:
        self.waves = waves
        self._desk = desk
        self._wake = wake

    async def gather(self, order: WaveOrder) -> list[Candidate]:
        """Who would be in it; makes nothing. UnknownTenantsError names those that are not there."""
        async with self.waves.writing() as session:
            return await _gathered(session, order)

    async def start(self, order: WaveOrder, actor: str) -> Wave:
        """Write the wave down; a worker begins its moves."""
        async with self.waves.writing() as session:
            candidates = await _gathered(session, order)
            if not candidates:
                message = "No tenant is in such a wave: nothing was started."
                raise EmptyWaveError(message)
            wave_id = await _write(session, *_origin(order), _destination(order), candidates, order.pace, actor)
        await self._wake()
        return await self.waves.get(wave_id)

    async def drain(self, plan: DrainPlan, pace: Pace, actor: str) -> Wave | None:
        """A wave over a drain's plan, in place of the wave of an earlier plan; None: it is empty already."""
        candidates = [
            Candidate(
                move.tenant_id,
                move.slug,
                move.from_cell,
                move.tier,
                move.to_cell,
                move.to_server,
                leaves=True,
                objection=None if move.to_server else move.reason,
            )
            for move in plan.moves
        ]
        async with self.waves.writing() as session:
            await _end_drain(session, plan.kind, plan.subject, actor)
            if not candidates:
                return None
            wave_id = await _write(
                session, _DRAINS[plan.kind], plan.subject, "wherever has room", candidates, pace, actor
            )
        await self._wake()
        return await self.waves.get(wave_id)

    async def end_drain(self, kind: DrainKind, subject: str, actor: str) -> None:
        """Nothing more begins for this drain."""
        async with self.waves.writing() as session:
            await _end_drain(session, kind, subject, actor)

    async def ask(self, wave_id: UUID, wish: WaveWish, actor: str) -> Wave:
        if wish is WaveWish.RETRY:
            # First the moves: the wave would look finished until they run. But none of a wave that may not be retried.
            async with self.waves.writing() as session:
                await _that_allows(session, wave_id, wish)
            await self._ask_moves(wave_id, [Phase.FAILED], Wish.RETRY, actor)
        async with self.waves.writing() as session:
            row = await _that_allows(session, wave_id, wish)
            await _fulfil(session, row, wish)
            record(session, actor, f"wave.{wish.value}", str(row.id))
        if wish is WaveWish.CANCEL_ALL:
            await self._ask_moves(wave_id, [*CANCELLABLE, Phase.CUTTING_OVER], Wish.CANCEL, actor)
        await self._wake()
        return await self.waves.get(wave_id)

    async def _ask_moves(self, wave_id: UUID, phases: Sequence[Phase], what: Wish, actor: str) -> None:
        async with self.waves.writing() as session:
            moves = await _moves_in(session, wave_id, phases)
        for move_id in moves:
            await self._ask_the_move(move_id, what, actor)

    async def _ask_the_move(self, move_id: UUID, what: Wish, actor: str) -> None:
        try:
            await self._desk.ask(move_id, what, actor)
        except WishRefusedError:
            # It has gone on meanwhile: past the cut-over, or it is being worked on again.
            return


class EmptyWaveError(ConflictError):
    code = "empty-wave"
    title = "No tenant to move"


class UnknownTenantsError(InvalidInputError):
    code = "unknown-tenants"
    title = "No such tenants"

    def __init__(self, slugs: Sequence[str]) -> None:
        shown = ", ".join(f"«{slug}»" for slug in slugs[:10])
        more = f" and {len(slugs) - 10} more" if len(slugs) > 10 else ""  # noqa: PLR2004 - as many as fit a line
        super().__init__(
            f"There are no tenants {shown}{more} that could be moved: mend the list, nothing was started.",
            extra={"tenants": list(slugs)},
        )


def _origin(order: WaveOrder) -> tuple[Origin, str]:
    if order.plan is not None:
        return Origin.PLAN, order.plan
    if order.from_cell is not None:
        return Origin.CELL, order.from_cell
    count = len(set(order.tenants))
    return Origin.NAMED, f"{count} tenant{'s' if count > 1 else ''}"


def _destination(order: WaveOrder) -> str:
    where = order.cell or order.server
    return f"{order.to} in {where}" if where else str(order.to)


async def _gathered(session: AsyncSession, order: WaveOrder) -> list[Candidate]:
    if sum((bool(order.tenants), order.plan is not None, order.from_cell is not None)) != 1:
        message = "Say whose wave it is: a list of tenants, a plan or a cell, and one of them alone."
        raise InvalidInputError(message)
    require_sense(order.to, cell=order.cell, server=order.server, retention_s=order.pace.retention_s)
    if order.cell is not None:
        await Registry.cell_row(session, order.cell)
    if order.server is not None:
        await Registry.server_row(session, order.server)
    query = (
        select(TenantRow.id, TenantRow.slug, CellRow.name)
        .join(PlacementRow, PlacementRow.tenant_id == TenantRow.id)
        .join(CellRow, CellRow.id == PlacementRow.cell_id)
        .where(TenantRow.status.in_(_LIVING))
        .order_by(TenantRow.slug)
    )
    if order.plan is not None:
        query = query.where(TenantRow.plan == plan_named(order.plan).name)
    elif order.from_cell is not None:
        await Registry.cell_row(session, order.from_cell)
        query = query.where(CellRow.name == order.from_cell)
    else:
        # As one parameter: a list may have more lines than a statement may have parameters. PostgreSQL's text has no NUL.
        slugs = [slug for slug in order.tenants if "\0" not in slug]
        query = query.where(TenantRow.slug == any_(cast(slugs, ARRAY(Text))))
    found = {slug: (tenant_id, cell) for tenant_id, slug, cell in await session.execute(query)}
    if missing := [slug for slug in dict.fromkeys(order.tenants) if slug not in found]:
        raise UnknownTenantsError(missing)
    # A list is worked in its own order: whoever wrote it may have thought about that.
    return [
        Candidate(found[slug][0], slug, found[slug][1], order.to, order.cell, order.server)
        for slug in (dict.fromkeys(order.tenants) if order.tenants else found)
    ]


async def _write(
    session: AsyncSession,
    origin: Origin,
    subject: str,
    destination: str,
    candidates: Sequence[Candidate],
    pace: Pace,
    actor: str,
) -> UUID:
    window = pace.window
    row = WaveRow(
        origin=origin,
        subject=subject,
        destination=destination,
        parallel=pace.parallel,
        max_failures=pace.max_failures,
        # What is known beforehand is no reason to stop.
        forgiven=sum(each.objection is not None for each in candidates),
        retention_s=pace.retention_s,
        window_begins=None if window is None else window.begins,
        window_ends=None if window is None else window.ends,
        window_zone=None if window is None else window.zone,
        started_by=actor,
    )
    session.add(row)
    await session.flush()
    session.add_all(
        WaveMemberRow(
            wave_id=row.id,
            tenant_id=each.tenant_id,
            position=position,
            state=MemberState.WAITING if each.objection is None else MemberState.REFUSED,
            from_cell=each.from_cell,
            leaves=each.leaves,
            to_tier=each.to_tier,
            to_cell=each.to_cell,
            to_server=each.to_server,
            code=None if each.objection is None else "no-room",
            reason=each.objection,
        )
        for position, each in enumerate(candidates)
    )
    detail: dict[str, object] = {"of": f"{origin.value} {subject}", "to": destination, "tenants": len(candidates)}
    record(session, actor, "wave.start", str(row.id), detail=detail)
    return row.id


async def _end_drain(session: AsyncSession, kind: DrainKind, subject: str, actor: str) -> None:
    rows = await session.scalars(
        select(WaveRow)
        .where(WaveRow.origin == _DRAINS[kind], WaveRow.subject == subject, WaveRow.state.not_in(ENDED))
        .with_for_update()
    )
    for row in rows.all():
        await _fulfil(session, row, WaveWish.CANCEL)
        record(session, actor, "wave.cancel", str(row.id), detail={"reason": "the drain was ended or planned anew"})


async def _that_allows(session: AsyncSession, wave_id: UUID, wish: WaveWish) -> WaveRow:
    """The wave, locked; WishRefusedError."""
    row = await session.get(WaveRow, wave_id, with_for_update=True)
    if row is None:
        raise UnknownWaveError(str(wave_id))
    if row.state not in _ALLOWED[wish]:
        message = f"A wave that is {row.state} cannot be asked to {wish.value}: strata migrate waves show {row.id}"
        raise WishRefusedError(message, extra={"state": row.state})
    return row


async def _fulfil(session: AsyncSession, row: WaveRow, wish: WaveWish) -> None:
    """With the wave's row locked."""
    row.waiting = None
    if wish is WaveWish.PAUSE:
        row.state = WaveState.PAUSED
    elif wish is WaveWish.RESUME:
        row.state, row.forgiven = WaveState.RUNNING, (await tally(session, row.id)).failed
    elif wish is WaveWish.RETRY:
        await _begin_again(session, row.id)
        row.state, row.forgiven, row.finished_at = WaveState.RUNNING, (await tally(session, row.id)).failed, None
    else:
        row.state, row.finished_at = WaveState.CANCELLED, row.finished_at or func.clock_timestamp()
        await session.execute(
            update(WaveMemberRow)
            .where(WaveMemberRow.wave_id == row.id, WaveMemberRow.state == MemberState.WAITING)
            .values(state=MemberState.DROPPED)
        )


async def _begin_again(session: AsyncSession, wave_id: UUID) -> None:
    given_up = await _moves_in(session, wave_id, [Phase.CANCELLED, Phase.ROLLED_BACK])
    await session.execute(
        update(WaveMemberRow)
        .where(
            WaveMemberRow.wave_id == wave_id,
            (WaveMemberRow.state == MemberState.REFUSED) | WaveMemberRow.move_id.in_(given_up),
        )
        .values(state=MemberState.WAITING, move_id=None, code=None, reason=None, not_before=None)
    )


async def _moves_in(session: AsyncSession, wave_id: UUID, phases: Sequence[Phase]) -> list[UUID]:
    query = (
        select(MoveRow.id)
        .join(WaveMemberRow, WaveMemberRow.move_id == MoveRow.id)
        .where(WaveMemberRow.wave_id == wave_id, MoveRow.phase.in_(phases))
    )
    return list(await session.scalars(query))
