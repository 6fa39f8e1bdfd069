"""Which worker has a move: a row of the catalog that runs out, so that a worker that is dead or asleep is not waited for.

Whoever takes a lease takes a new attempt with it. In a phase in which the fence may be shut, that is the abort of the
attempt before: its flip compares with a number that no longer stands.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from strata.migrator.errors import SupersededError
from strata.migrator.models import ATTEMPTS, MoveRow
from strata.migrator.moves import Move, append_event, as_move
from strata.migrator.phases import AT_THE_FLIP, CANCELLABLE, FINISHED, Phase, Wish
from strata.migrator.transitions import Advance
from strata.tenancy.catalog.tables import TenantRow

if TYPE_CHECKING:
    from strata.migrator.moves import Moves
    from strata.migrator.work import Work
    from strata.platform.settings import MigratorSettings


async def take(moves: Moves, move_id: UUID, worker: str, lease_s: float) -> tuple[Move, Phase] | None:
    """Take a move that nobody holds, and the phase in which it was found; None: it is held, or finished."""
    async with moves.writing() as session:
        row = await session.scalar(
            select(MoveRow)
            .where(
                MoveRow.id == move_id,
                MoveRow.phase.not_in(FINISHED),
                or_(MoveRow.leased_until.is_(None), MoveRow.leased_until < func.clock_timestamp()),
            )
            .with_for_update(skip_locked=True)
        )
        if row is None:
            return None
        found_in = Phase(row.phase)
        again = row.worker is not None
        row.attempt = await session.scalar(select(ATTEMPTS.next_value())) or 0
        # With the number it is this reign's alone, also when the same process takes the move again.
        row.worker = f"{worker}#{row.attempt}"
        row.leased_until = func.clock_timestamp() + timedelta(seconds=lease_s)
        if found_in in AT_THE_FLIP:
            row.phase = AT_THE_FLIP[found_in]
        await session.flush()
        await session.refresh(row)
        if again:
            append_event(session, row, worker, "taken over", {"found in": found_in})
        slug = await session.scalar(select(TenantRow.slug).where(TenantRow.id == row.tenant_id)) or ""
        return as_move(row, slug), found_in


@asynccontextmanager
async def held(moves: Moves, work: Work, settings: MigratorSettings) -> AsyncIterator[None]:
    """Renew the lease during the block, and bring in what people wish meanwhile; free it afterwards."""
    renewing = asyncio.create_task(_renew(moves, work, settings), name=f"lease-{work.move.id}")
    try:
        yield
    finally:
        renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewing
        with contextlib.suppress(SQLAlchemyError, OSError):
            await asyncio.shield(_free(moves, work))


async def _free(moves: Moves, work: Work) -> None:
    async with moves.writing() as session:
        await session.execute(
            update(MoveRow).where(MoveRow.id == work.move.id, MoveRow.worker == work.reign).values(leased_until=None)
        )


async def _renew(moves: Moves, work: Work, settings: MigratorSettings) -> None:
    while True:
        await asyncio.sleep(settings.heartbeat_s)
        try:
            async with moves.writing_briefly() as session:
                row = (
                    await session.execute(
                        update(MoveRow)
                        .where(MoveRow.id == work.move.id, MoveRow.worker == work.reign)
                        .values(leased_until=func.clock_timestamp() + timedelta(seconds=settings.lease_s))
                        .returning(MoveRow.wish, MoveRow.hold)
                    )
                ).one_or_none()
            now = None if row is not None else await moves.get(work.move.id)
        except (SQLAlchemyError, OSError):
            # Without the catalog nobody can take the move over either; what must not be done late compares with n.
            continue
        if row is not None:
            work.hear(Wish(row.wish) if row.wish else None, hold=row.hold)
        elif now is not None and now.worker != work.reign:
            work.lose()


async def interrupted(work: Work, step: Coroutine[None, None, Advance]) -> Advance:
    """Run the step; stop it when the lease is lost, or when somebody cancels the move and the phase allows it."""
    running = asyncio.create_task(step, name=f"step-{work.move.phase}")
    heard = asyncio.create_task(_heard(work))
    try:
        await asyncio.wait({running, heard}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        running.cancel()
        await asyncio.wait({running})
        if work.lost:
            raise SupersededError(work.move.id, work.move.attempt)
        return Advance(Phase.CANCELLING, "cancelling")
    finally:
        running.cancel()
        heard.cancel()
        await asyncio.wait({running, heard})


async def _heard(work: Work) -> None:
    while not work.lost and not (work.wish is Wish.CANCEL and work.move.phase in CANCELLABLE):
        await work.news()
