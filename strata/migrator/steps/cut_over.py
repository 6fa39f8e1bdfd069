"""cutting_over: the window in which the tenant waits. Its acts bear the names of the model (docs/moving.md).

    1 begin          catalog: attempt n, cutting_over, a fresh epoch e'        (the machine, coming from `ready`)
    2 close_source   cell:    fence row `moving`, n
    3 drain          cell:    exclusive lock, marker n in the log, commit
    4 apply          target:  everything up to the marker
    5                every standby was closed to the tenant before 1           (`ready`)
    6 open_target    cell:    fence row active at e'
    7 flip           catalog: placement at e', by compare-and-set on (cutting_over, n)     (the machine)
    8 retire_source  cell:    fence row `moved`                                (`retaining`)

Any of 2 to 6 that is late calls the attempt off: the catalog says so first (`abort`, the machine), then the source
opens again (`reopen_source`, here in compensate).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, ClassVar

import asyncpg
import msgspec

from strata.migrator import fence
from strata.migrator.errors import CalledOffError, FailedOverError
from strata.migrator.faults import reached
from strata.migrator.moves import SILENCE_S
from strata.migrator.phases import Phase
from strata.migrator.sequences import advance_sequences
from strata.migrator.streams import Direction
from strata.migrator.transitions import Advance, Flip, rehearse
from strata.migrator.work import Crossed
from strata.platform.database.connecting import DatabaseMissingError
from strata.platform.database.failures import LOST

if TYPE_CHECKING:
    from strata.migrator.work import Work

_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 5.0


class CutOver:
    phase: ClassVar = Phase.CUTTING_OVER
    rerunnable: ClassVar = False

    async def check(self, work: Work) -> None:
        """All that can be checked was checked in `ready`: here the tenant waits."""

    async def run(self, work: Work) -> Advance:
        return await Crossing(work, Direction.OUT, work.move.source_epoch).cross(Phase.RETAINING, "flipped")

    async def compensate(self, work: Work) -> None:
        await undo(work, Direction.OUT, work.move.source_epoch)


class Crossing:
    """Steps 2 to 6, in either direction: a rollback is the same cut-over the other way."""

    def __init__(self, work: Work, direction: Direction, epoch_before: int) -> None:
        self._work = work
        self._direction = direction
        self._epoch_before = epoch_before
        self._origin, self._destination = work.streams.ends_of(direction)
        self._begun = time.monotonic()
        self._times_ms: dict[str, float] = {}

    async def cross(self, into: Phase, what: str) -> Advance:
        """All but the flip itself: what it is to be."""
        work, move = self._work, self._work.move
        replay = await work.streams.replay(move, self._direction)
        tables = await work.streams.tables(self._direction)
        flip = Advance(into, what, flip=Flip(self._destination.place, self._epoch_before))
        point = move.phase.value
        async with AsyncExitStack() as stack:
            old = await stack.enter_async_context(self._origin.admin(remembering=True))
            new = await stack.enter_async_context(self._destination.admin(remembering=True))
            at_hand = await stack.enter_async_context(work.around.moves.at_hand())
            await self._rehearse(old, new)
            await rehearse(at_hand, move, flip)
            with self._patience(old, new):
                self._begun = time.monotonic()
                await self._within_the_lock(self._close(old))
                await reached(f"{point}.closed")
                await self._within_the_lock(fence.drain(old, move.tenant_id, move.attempt))
                self._mark("drain")
                await reached(f"{point}.drained")
                try:
                    async with asyncio.timeout(work.settings.drain_deadline_ms / 1000):
                        await replay.apply_until_marker(str(move.attempt))
                except TimeoutError:
                    late = f"The last changes did not arrive within {work.settings.drain_deadline_ms} ms."
                    raise CalledOffError(late, self._pause_s()) from None
                self._mark("apply")
                await reached(f"{point}.applied")
                if tables.sequences:
                    await advance_sequences(old, new, tables, self._destination.home)
                await self._open(new)
                self._mark("open")
                await reached(f"{point}.opened")
                if old.is_closed() or new.is_closed():
                    # Whoever is failed over now may not have heard of its fence. To be told so costs the tenant no round trip.
                    gone = "A server went away between the opening of the new home and the flip."
                    raise CalledOffError(gone, self._pause_s())
            # To close them takes as long as an act does: not before the tenant has been let in.
            work.crossed = Crossed(self._begun, at_hand, stack.pop_all())
        return msgspec.structs.replace(flip, detail={"times_ms": dict(self._times_ms)})

    @contextmanager
    def _patience(self, *connections: asyncpg.Connection) -> Iterator[None]:
        """From here the tenant waits: a connection on which nothing more is heard would keep its fence shut.

        All end together, and nobody waits for their end: to close one in order takes as long as its server likes.
        """
        # On a machine that is at its limit, nothing would ever be quick enough.
        within_s = SILENCE_S * (1 << min(self._work.called_off, 5))
        silent = False

        def hang_up() -> None:
            for connection in connections:
                connection.terminate()

        def lose_patience() -> None:
            nonlocal silent
            silent = True
            hang_up()

        # Not asyncio.timeout: a driver that is cancelled waits for the server to say that it has heard so.
        deadline = asyncio.get_running_loop().call_later(within_s, lose_patience)
        try:
            yield
        except BaseException as error:
            hang_up()
            if silent and isinstance(error, LOST):
                late = f"A server did not do within {within_s:g} s what the tenant waited for."
                raise CalledOffError(late, self._pause_s()) from error
            raise
        finally:
            deadline.cancel()

    async def _rehearse(self, old: asyncpg.Connection, new: asyncpg.Connection) -> None:
        for connection in (old, new):
            await connection.execute(f"SET lock_timeout = {self._work.settings.lock_deadline_ms:d}")
        await self._close(old, rehearse=True)
        await fence.drain(old, self._work.move.tenant_id, self._work.move.attempt, rehearse=True)
        await self._open(new, rehearse=True)

    async def _close(self, old: asyncpg.Connection, *, rehearse: bool = False) -> None:
        move, origin = self._work.move, self._origin
        if not await fence.close_source(
            old, move.tenant_id, self._epoch_before, move.attempt, reign=origin.attempt, rehearse=rehearse
        ):
            raise FailedOverError(origin.place.cell)

    async def _open(self, new: asyncpg.Connection, *, rehearse: bool = False) -> None:
        move, destination = self._work.move, self._destination
        assert move.epoch is not None  # noqa: S101 - whoever entered this phase has set it
        if not await fence.open_target(
            new,
            move.tenant_id,
            destination.home.schema_name,
            move.epoch,
            move.attempt,
            same_cell=move.in_one_cell,
            reign=destination.attempt,
            rehearse=rehearse,
        ):
            raise FailedOverError(destination.place.cell)

    async def _within_the_lock(self, act: Awaitable[object]) -> None:
        try:
            await act
        except asyncpg.LockNotAvailableError as error:
            late = "A transaction of the tenant's was still open when the fence was to be shut."
            raise CalledOffError(late, self._pause_s()) from error

    def _pause_s(self) -> float:
        return min(_PAUSE_S * (1 << min(self._work.called_off, 5)), _LONGEST_PAUSE_S)

    def _mark(self, what: str) -> None:
        self._times_ms[what] = round((time.monotonic() - self._begun) * 1000, 3)


async def undo(work: Work, direction: Direction, epoch_before: int) -> None:
    """After the catalog has said that the attempt is over: let the tenant in where it was, and forget the other row.

    First the one, then the other: the tenant does not wait for a server that it does not live on.
    """
    origin, destination = work.streams.ends_of(direction)
    # Where the database has gone there is nothing to open; the step that comes next says what that means.
    with contextlib.suppress(DatabaseMissingError):
        await work.fence_off(origin)
        async with origin.writing() as old:
            await fence.reopen_source(
                old, work.move.tenant_id, origin.home.schema_name, epoch_before, work.move.attempt
            )
    await work.around.arrivals.opened(work.move.tenant_id)
    await reached(f"{work.move.phase}.reopened")
    if work.move.epoch is not None and not work.move.in_one_cell and await destination.is_there():
        await work.fence_off(destination)
        async with destination.shutting() as new:
            await fence.retire(new, work.move.tenant_id, work.move.epoch)
    work.called_off += 1
    await work.let_crossing_go()
