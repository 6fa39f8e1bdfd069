"""Waves as the catalog has them. What became of a tenant is its move's phase, so a retry or a rollback shows here too."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, and_, case, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from strata.migrator.models import MoveRow
from strata.migrator.phases import FINISHED, Phase
from strata.migrator.waves.models import ENDED, MemberState, Origin, WaveMemberRow, WaveRow, WaveState
from strata.migrator.waves.window import Window
from strata.platform.errors import ConflictError, NotFoundError
from strata.tenancy.catalog.tables import TenantRow
from strata.tenancy.model import Tier

if TYPE_CHECKING:
    from strata.migrator.moves import Moves


class Outcome(StrEnum):
    """How it went with one tenant."""

    WAITING = "waiting"
    MOVING = "moving"
    ARRIVED = "arrived"
    FAILED = "failed"
    SKIPPED = "skipped"
    DROPPED = "dropped"


class UnknownWaveError(NotFoundError):
    code = "unknown-wave"
    title = "No such wave"

    def __init__(self, name: str) -> None:
        super().__init__(f"No wave answers to «{name}»; strata migrate waves shows those there are.")


class AmbiguousWaveError(ConflictError):
    code = "ambiguous-wave"
    title = "More than one wave"

    def __init__(self, name: str) -> None:
        super().__init__(f"More than one wave's id begins with «{name}»; write more of it (strata migrate waves).")


class Wave(msgspec.Struct, frozen=True):
    id: UUID
    state: WaveState
    origin: Origin
    subject: str
    destination: str
    parallel: int
    max_failures: int
    retention_s: int
    window: Window | None
    window_open: bool
    waiting: str | None
    """What it waits for, or why it has stopped."""
    counts: dict[str, int]
    """Tenants by outcome."""
    driver: str | None
    started_by: str
    created_at: datetime
    finished_at: datetime | None

    @property
    def tenants(self) -> int:
        return sum(self.counts.values())

    @property
    def rests(self) -> bool:
        """Nothing of it is under way, and nothing will begin by itself."""
        return self.state is not WaveState.RUNNING and not self.counts.get(Outcome.MOVING, 0)

    def __str__(self) -> str:
        said = {
            Origin.NAMED: f"{self.subject} by name",
            Origin.PLAN: f"plan {self.subject}",
            Origin.CELL: f"cell {self.subject}",
            Origin.CELL_DRAIN: f"drain of cell {self.subject}",
            Origin.SERVER_DRAIN: f"drain of server {self.subject}",
        }
        return f"{said[self.origin]} to {self.destination}"


class Member(msgspec.Struct, frozen=True):
    position: int
    tenant: str
    outcome: Outcome
    from_cell: str
    to_tier: Tier
    to_cell: str | None
    to_server: str | None
    move: UUID | None
    phase: Phase | None
    code: str | None
    reason: str | None
    """Why it did not arrive, has been skipped, or still waits."""
    next: str | None
    """The command to type, where a person must decide."""
    write_block_ms: float | None
    began_at: datetime | None
    finished_at: datetime | None


_GIVEN_UP = [Phase.CANCELLED, Phase.CANCELLING, Phase.ROLLING_BACK, Phase.WITHDRAWING, Phase.ROLLED_BACK, Phase.FAILED]
_RETRIED = and_(MoveRow.phase == Phase.FAILED, MoveRow.wish.is_not(None))
"""It has failed, and somebody has asked for another try that no worker has taken up yet."""
_THERE = [Phase.RETAINING, Phase.COMPLETING, Phase.COMPLETED]


def _outcome() -> ColumnElement[str]:
    states = {
        MemberState.WAITING: Outcome.WAITING,
        MemberState.REFUSED: Outcome.FAILED,
        MemberState.SKIPPED: Outcome.SKIPPED,
        MemberState.DROPPED: Outcome.DROPPED,
    }
    return case(
        *((WaveMemberRow.state == state, literal(outcome.value)) for state, outcome in states.items()),
        (_RETRIED, literal(Outcome.MOVING.value)),
        (MoveRow.phase.in_(_GIVEN_UP), literal(Outcome.FAILED.value)),
        (MoveRow.phase.in_(_THERE), literal(Outcome.ARRIVED.value)),
        else_=literal(Outcome.MOVING.value),
    )


BUSY = or_(
    _RETRIED,
    and_(
        MoveRow.phase.not_in([*FINISHED, Phase.FAILED]),
        or_(MoveRow.phase != Phase.RETAINING, MoveRow.retention_s == 0),
    ),
)
"""Takes a place among those that may be under way at once. A way back that is only kept does not."""


class Tally(msgspec.Struct, frozen=True):
    waiting: int
    busy: int
    failed: int


async def tally(session: AsyncSession, wave_id: UUID) -> Tally:
    """By the caller's transaction, which holds the wave's row."""
    outcome = _outcome()
    row = (
        await session.execute(
            select(
                func.count().filter(outcome == Outcome.WAITING),
                func.count().filter(BUSY),
                func.count().filter(outcome == Outcome.FAILED),
            )
            .select_from(WaveMemberRow)
            .outerjoin(MoveRow, MoveRow.id == WaveMemberRow.move_id)
            .where(WaveMemberRow.wave_id == wave_id)
        )
    ).one()
    return Tally(*row)


async def counts_of(session: AsyncSession, wave_ids: Sequence[UUID]) -> dict[UUID, dict[str, int]]:
    """Tenants by outcome; an outcome that nobody has is left out."""
    outcome = _outcome().label("outcome")
    counted = await session.execute(
        select(WaveMemberRow.wave_id, outcome, func.count())
        .outerjoin(MoveRow, MoveRow.id == WaveMemberRow.move_id)
        .where(WaveMemberRow.wave_id.in_(wave_ids))
        .group_by(WaveMemberRow.wave_id, outcome)
    )
    counts: dict[UUID, dict[str, int]] = {}
    for wave_id, each, count in counted:
        counts.setdefault(wave_id, {})[each] = count
    return counts


class Waves:
    def __init__(self, moves: Moves) -> None:
        self._moves = moves
        self.writing = moves.writing

    async def get(self, wave_id: UUID) -> Wave:
        found = await self._read(WaveRow.id == wave_id, 1)
        if not found:
            raise UnknownWaveError(str(wave_id))
        return found[0]

    async def find(self, name: str) -> Wave:
        """By id or its beginning; AmbiguousWaveError where several begin so."""
        stem = name.replace("-", "").lower()
        if not stem or not all(digit in "0123456789abcdef" for digit in stem):
            raise UnknownWaveError(name)
        written = func.replace(func.cast(WaveRow.id, WaveRow.subject.type), "-", "")
        found = await self._read(written.startswith(stem), 2)
        if not found:
            raise UnknownWaveError(name)
        # Ids begin with the time: of waves of one day the first digits are the same.
        if len(found) > 1:
            raise AmbiguousWaveError(name)
        return found[0]

    async def latest(self) -> Wave:
        if not (found := await self.newest(limit=1)):
            raise UnknownWaveError("")
        return found[0]

    async def newest(self, *, unfinished: bool = False, before: UUID | None = None, limit: int = 50) -> list[Wave]:
        wanted: list[ColumnElement[bool]] = []
        if unfinished:
            wanted.append(WaveRow.state.not_in(ENDED))
        if before is not None:
            wanted.append(WaveRow.id < before)
        return await self._read(and_(True, *wanted), limit)  # noqa: FBT003 - SQL's own TRUE

    async def members(
        self, wave_id: UUID, *, after: int = -1, limit: int | None = None, urgent_first: bool = False
    ) -> list[Member]:
        """In their order, `after` a position; or first those that a person must look at, then those under way."""
        outcome = _outcome()
        urgency = [outcome != Outcome.FAILED, outcome != Outcome.MOVING] if urgent_first else []
        query = (
            select(WaveMemberRow, TenantRow.slug, MoveRow, outcome)
            .join(TenantRow, TenantRow.id == WaveMemberRow.tenant_id)
            .outerjoin(MoveRow, MoveRow.id == WaveMemberRow.move_id)
            .where(WaveMemberRow.wave_id == wave_id, WaveMemberRow.position > after)
            .order_by(*urgency, WaveMemberRow.position)
            .limit(limit)
        )
        async with self._moves.writing() as session:
            return [_as_member(*row) for row in await session.execute(query)]

    async def drivable(self) -> list[UUID]:
        """Those that run and that nobody drives."""
        query = select(WaveRow.id).where(
            WaveRow.state == WaveState.RUNNING,
            or_(WaveRow.leased_until.is_(None), WaveRow.leased_until < func.clock_timestamp()),
        )
        async with self._moves.writing() as session:
            return list(await session.scalars(query))

    async def _read(self, wanted: ColumnElement[bool], limit: int) -> list[Wave]:
        query = select(WaveRow).where(wanted).order_by(WaveRow.id.desc()).limit(limit)
        async with self._moves.writing() as session:
            rows = list(await session.scalars(query))
            counts = await counts_of(session, [row.id for row in rows])
        return [_as_wave(row, counts.get(row.id, {})) for row in rows]


def window_of(row: WaveRow) -> Window | None:
    if row.window_begins is None or row.window_ends is None or row.window_zone is None:
        return None
    return Window(row.window_begins, row.window_ends, row.window_zone)


def _as_wave(row: WaveRow, counts: dict[str, int]) -> Wave:
    window = window_of(row)
    return Wave(
        id=row.id,
        state=WaveState(row.state),
        origin=Origin(row.origin),
        subject=row.subject,
        destination=row.destination,
        parallel=row.parallel,
        max_failures=row.max_failures,
        retention_s=row.retention_s,
        window=window,
        window_open=window is None or window.open_at(datetime.now(UTC)),
        waiting=row.waiting,
        counts={outcome.value: counts.get(outcome, 0) for outcome in Outcome},
        driver=row.driver if row.leased_until is not None else None,
        started_by=row.started_by,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def _as_member(row: WaveMemberRow, slug: str, move: MoveRow | None, outcome: str) -> Member:
    code, reason, command = row.code, row.reason, None
    if move is not None:
        code, reason, command = _said_of(move)
    return Member(
        position=row.position,
        tenant=slug,
        outcome=Outcome(outcome),
        from_cell=row.from_cell,
        to_tier=Tier(row.to_tier),
        to_cell=row.to_cell,
        to_server=row.to_server,
        move=row.move_id,
        phase=None if move is None else Phase(move.phase),
        code=code,
        reason=reason,
        next=command,
        write_block_ms=None if move is None else move.write_block_ms,
        began_at=None if move is None else move.created_at,
        finished_at=None if move is None else move.finished_at,
    )


def _said_of(move: MoveRow) -> tuple[str | None, str | None, str | None]:
    if move.failure:
        return move.failure["code"], f"{move.failure['detail']} {move.failure['tenant']}", move.failure["next"]
    if move.phase in {Phase.CANCELLING, Phase.CANCELLED}:
        return "cancelled", "Its move was cancelled; the tenant stays where it was.", None
    if move.phase in {Phase.ROLLING_BACK, Phase.WITHDRAWING, Phase.ROLLED_BACK}:
        return "rolled-back", "Its move was rolled back; the tenant is back in its old home.", None
    return None, move.progress.get("waiting"), None
