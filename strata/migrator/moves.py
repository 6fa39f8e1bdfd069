"""Moves as the catalog has them: reading them, and writing everything but a phase."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from sqlalchemy import Select, and_, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from strata.migrator.errors import AmbiguousMoveError, UnknownMoveError
from strata.migrator.models import ATTEMPTS, EPOCHS, MoveEventRow, MoveRow
from strata.migrator.phases import AT_THE_FLIP, FINISHED, LOADING, Phase, Stage, Wish, stage_of
from strata.tenancy.catalog.tables import CellRow, ServerRow, TenantRow
from strata.tenancy.model import Tier

if TYPE_CHECKING:
    import asyncpg

SILENCE_S = 1.0
"""How long neither the catalog nor a worker waits for the other's next word in mid-transaction, at first."""
CROSSED = ("flipped", "flipped back")
"""What the event of a flip is called that a crossing came to."""


class Place(msgspec.Struct, frozen=True):
    cell: str
    tier: Tier
    schema_name: str

    def __str__(self) -> str:
        return f"{self.tier} in {self.cell}"


class Failure(msgspec.Struct, frozen=True):
    """What a person needs to know of a move that stopped."""

    phase: Phase
    code: str
    detail: str
    tenant: str
    """The state the tenant is in."""
    next: str
    """The command to type."""
    extra: dict[str, Any] = {}


class Move(msgspec.Struct, frozen=True):
    id: UUID
    tenant_id: UUID
    slug: str
    phase: Phase
    failed_in: Phase | None
    attempt: int
    epoch: int | None
    number: int
    source: Place
    target: Place
    target_server: str
    source_epoch: int
    target_epoch: int | None
    hold: bool
    retention_s: int
    retained_until: datetime | None
    wish: Wish | None
    progress: dict[str, Any]
    failure: Failure | None
    write_block_ms: float | None
    worker: str | None
    leased_until: datetime | None
    not_before: datetime | None
    started_by: str
    created_at: datetime
    finished_at: datetime | None

    @property
    def stage(self) -> Stage:
        return stage_of(self.phase)

    @property
    def finished(self) -> bool:
        return self.phase in FINISHED

    @property
    def in_one_cell(self) -> bool:
        return self.source.cell == self.target.cell


class MoveEvent(msgspec.Struct, frozen=True):
    id: int
    move_id: UUID
    at: datetime
    attempt: int
    phase: Phase
    actor: str
    what: str
    detail: dict[str, Any]


def _moves() -> Select[MoveRow, str]:
    return select(MoveRow, TenantRow.slug).join(TenantRow, TenantRow.id == MoveRow.tenant_id)


def as_move(row: MoveRow, slug: str) -> Move:
    return Move(
        id=row.id,
        tenant_id=row.tenant_id,
        slug=slug,
        phase=Phase(row.phase),
        failed_in=Phase(row.failed_in) if row.failed_in else None,
        attempt=row.attempt,
        epoch=row.epoch,
        number=row.number,
        source=Place(row.source_cell, Tier(row.source_tier), row.source_schema),
        target=Place(row.target_cell, Tier(row.target_tier), row.target_schema),
        target_server=row.target_server,
        source_epoch=row.source_epoch,
        target_epoch=row.target_epoch,
        hold=row.hold,
        retention_s=row.retention_s,
        retained_until=row.retained_until,
        wish=Wish(row.wish) if row.wish else None,
        progress=row.progress,
        failure=msgspec.convert(row.failure, Failure) if row.failure else None,
        write_block_ms=row.write_block_ms,
        worker=row.worker,
        leased_until=row.leased_until,
        not_before=row.not_before,
        started_by=row.started_by,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def append_event(session: AsyncSession, row: MoveRow, actor: str, what: str, detail: dict[str, Any]) -> None:
    """In the session's transaction, so that what is told and what is true are one."""
    session.add(
        MoveEventRow(
            move_id=row.id,
            attempt=row.attempt,
            phase=row.phase,
            actor=actor,
            what=what,
            detail=msgspec.to_builtins(detail),
        )
    )


_LET_GO = text("SELECT set_config('idle_in_transaction_session_timeout', :within, true)")


@asynccontextmanager
async def briefly(session: AsyncSession, within_s: float) -> AsyncIterator[AsyncSession]:
    """The session's transaction, committed at the end of the block. When its server has not answered within the time, or
    the block fails, the connection ends: neither its COMMIT nor its ROLLBACK is waited for, nor what it has locked.
    """
    driver = await _driver_of(session)
    # Not asyncio.timeout: a driver that is cancelled waits for the server to say that it has heard so.
    deadline = asyncio.get_running_loop().call_later(within_s, driver.terminate)
    try:
        yield session
        await session.commit()
    except BaseException:
        await _hang_up(session, driver)
        raise
    finally:
        deadline.cancel()


async def _driver_of(session: AsyncSession) -> asyncpg.Connection:
    """What the session's transaction goes over."""
    driver: asyncpg.Connection | None = (await (await session.connection()).get_raw_connection()).driver_connection
    assert driver is not None  # noqa: S101 - it was connected just now
    return driver


async def _hang_up(session: AsyncSession, driver: asyncpg.Connection) -> None:
    driver.terminate()
    await session.invalidate()


class Moves:
    def __init__(self, catalog: AsyncEngine) -> None:
        self._sessions = async_sessionmaker(catalog, expire_on_commit=False)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """A transaction of the catalog, committed at the end of the block; never held while a cell is worked on."""
        async with self._sessions.begin() as session:
            yield session

    @asynccontextmanager
    async def writing_briefly(self, within_s: float = SILENCE_S) -> AsyncIterator[AsyncSession]:
        """As `writing`, and neither side waits for the other's next word: a COMMIT or its answer that goes astray would
        leave the move's row locked, or the fence shut. The connection ends then, and the outcome is unknown.
        """
        async with self._sessions() as session, briefly(session, within_s):
            await session.execute(_LET_GO, {"within": f"{within_s * 1000:.0f}ms"})
            yield session

    @asynccontextmanager
    async def at_hand(self) -> AsyncIterator[AsyncSession]:
        """A transaction that has begun and holds nothing, to be used `briefly`: one that must not wait for its beginning.

        The server ends it when nothing is done in it for as long as a cut-over may take. One that was not used ends with
        its connection: a server that has fallen silent would not answer a ROLLBACK, and a fence may be shut meanwhile.
        """
        async with self._sessions() as session:
            driver = await _driver_of(session)
            await session.execute(_LET_GO, {"within": f"{2 * SILENCE_S * 1000:.0f}ms"})
            try:
                yield session
            finally:
                if session.in_transaction():
                    await _hang_up(session, driver)

    async def get(self, move_id: UUID) -> Move:
        async with self._sessions() as session:
            row = (await session.execute(_moves().where(MoveRow.id == move_id))).one_or_none()
        if row is None:
            raise UnknownMoveError(str(move_id))
        return as_move(*row)

    async def find(self, name: str) -> Move:
        """The latest of a tenant by slug, or by id or the beginning of one; AmbiguousMoveError where several begin so."""
        if (named := await self.newest(slug=name, limit=1)) or not (stem := name.replace("-", "").lower()):
            found = named
        elif all(digit in "0123456789abcdef" for digit in stem):
            begins = func.replace(func.cast(MoveRow.id, TenantRow.slug.type), "-", "").startswith(stem)
            async with self._sessions() as session:
                found = [as_move(*row) for row in await session.execute(_moves().where(begins).limit(2))]
        else:
            found = []
        if not found:
            raise UnknownMoveError(name)
        # Ids begin with the time: of moves of one day the first digits are the same.
        if len(found) > 1:
            raise AmbiguousMoveError(name)
        return found[0]

    async def newest(
        self, *, slug: str | None = None, unfinished: bool = False, before: UUID | None = None, limit: int = 50
    ) -> list[Move]:
        """Newest first; ids are in the order of time."""
        query = _moves().order_by(MoveRow.id.desc()).limit(limit)
        if slug is not None:
            query = query.where(TenantRow.slug == slug)
        if unfinished:
            query = query.where(MoveRow.phase.not_in(FINISHED))
        if before is not None:
            query = query.where(MoveRow.id < before)
        async with self._sessions() as session:
            return [as_move(*row) for row in await session.execute(query)]

    async def workable(self) -> list[UUID]:
        """Moves that need a worker and have none, oldest first."""
        query = (
            select(MoveRow.id)
            .where(
                or_(MoveRow.phase.not_in([*FINISHED, Phase.FAILED]), MoveRow.wish.is_not(None)),
                MoveRow.phase.not_in(FINISHED),
                or_(MoveRow.leased_until.is_(None), MoveRow.leased_until < func.clock_timestamp()),
                or_(MoveRow.not_before.is_(None), MoveRow.not_before < func.clock_timestamp()),
            )
            .order_by(MoveRow.created_at)
        )
        async with self._sessions() as session:
            return list(await session.scalars(query))

    async def retaining_in(self, cell: str) -> int:
        """Moves whose way back decodes this cell's log."""
        query = select(func.count()).where(MoveRow.target_cell == cell, MoveRow.phase == Phase.RETAINING)
        async with self._sessions() as session:
            return await session.scalar(query) or 0

    async def before_on(self, server: str, move: Move) -> int:
        """Moves that load this server, and those that wait for it and were started earlier; those that a worker has."""
        cells = select(CellRow.name).join(ServerRow, ServerRow.id == CellRow.server_id).where(ServerRow.name == server)
        query = select(func.count()).where(
            MoveRow.id != move.id,
            or_(MoveRow.target_server == server, MoveRow.source_cell.in_(cells)),
            or_(MoveRow.phase.in_(LOADING), and_(MoveRow.phase == Phase.PENDING, MoveRow.id < move.id)),
            MoveRow.leased_until > func.clock_timestamp(),
        )
        async with self._sessions() as session:
            return await session.scalar(query) or 0

    async def events(self, move_id: UUID, after: int = 0, limit: int = 1000) -> list[MoveEvent]:
        query = (
            select(MoveEventRow)
            .where(MoveEventRow.move_id == move_id, MoveEventRow.id > after)
            .order_by(MoveEventRow.id)
            .limit(limit)
        )
        async with self._sessions() as session:
            return [
                MoveEvent(row.id, row.move_id, row.at, row.attempt, Phase(row.phase), row.actor, row.what, row.detail)
                for row in await session.scalars(query)
            ]

    async def latest_crossing_ms(self, move: Move) -> float | None:
        """From the beginning of the cut-over, or the way back, to its flip, by the catalog's clock."""
        flipped = (
            select(MoveEventRow)
            .where(MoveEventRow.move_id == move.id, MoveEventRow.what.in_(CROSSED))
            .order_by(MoveEventRow.id.desc())
            .limit(1)
            .subquery()
        )
        begun = (
            select(func.max(MoveEventRow.at))
            .where(MoveEventRow.move_id == move.id, MoveEventRow.id < flipped.c.id)
            .where(MoveEventRow.phase.in_(AT_THE_FLIP))
            .scalar_subquery()
        )
        async with self._sessions() as session:
            took: timedelta | None = await session.scalar(select(flipped.c.at - begun))
        return None if took is None else round(took.total_seconds() * 1000, 1)

    async def next_attempt(self) -> int:
        async with self._sessions() as session:
            return await session.scalar(select(ATTEMPTS.next_value())) or 0

    async def next_epoch(self) -> int:
        """e', never given out before and never again."""
        async with self._sessions() as session:
            return await session.scalar(select(EPOCHS.next_value())) or 0

    async def tell(self, move: Move, actor: str, what: str, detail: dict[str, Any] | None = None) -> None:
        """Add an event that changes no phase."""
        async with self.writing() as session:
            append_event(session, await session.get_one(MoveRow, move.id), actor, what, detail or {})

    async def note(self, move: Move, **values: object) -> bool:
        """Write what the move's worker knows (progress, number); False when the attempt is over."""
        async with self.writing() as session:
            written = await session.scalars(
                update(MoveRow)
                .where(MoveRow.id == move.id, MoveRow.attempt == move.attempt)
                .values(**values)
                .returning(MoveRow.id)
            )
            return written.first() is not None
