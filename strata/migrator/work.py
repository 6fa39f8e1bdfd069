"""What a step has at hand: the move as its worker knows it, both ends, the streams, and what people wish meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from strata.migrator.errors import CalledOffError, SupersededError
from strata.migrator.models import Side
from strata.migrator.objects import Objects
from strata.migrator.origins import end_applier
from strata.migrator.phases import Wish
from strata.migrator.streams import Direction, Streams, stream_name
from strata.platform.database.failures import NO_ANSWER
from strata.platform.errors import StrataError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from strata.migrator.moves import Move, Moves
    from strata.migrator.sites import End, Sites
    from strata.platform.settings import MigratorSettings
    from strata.tenancy.arrivals import Arrivals
    from strata.tenancy.model import Tier
    from strata.tenancy.provisioning.homes import Home as HomeKind

_RESTAMP = "UPDATE strata.apply_progress SET attempt = $2 WHERE origin = $1 AND attempt <= $2"


class Surroundings:
    """What every move's work needs of the process, wired once."""

    def __init__(
        self,
        moves: Moves,
        sites: Sites,
        homes: dict[Tier, HomeKind],
        settings: MigratorSettings,
        arrivals: Arrivals,
        announce: Callable[[UUID], Awaitable[None]],
        arrived: Callable[[Move], Awaitable[None]],
        left_behind: Callable[[UUID, int], Awaitable[bool]],
    ) -> None:
        self.moves = moves
        self.objects = Objects(moves)
        self.sites = sites
        self.homes = homes
        self.settings = settings
        self.arrivals = arrivals
        self.announce = announce
        """Tells every process that the tenant has a new placement."""
        self.arrived = arrived
        """Called when the tenant lives in its new home; may be called again after a crash."""
        self.left_behind = left_behind
        """Whether events of the tenant, written before the epoch, still wait in the old home."""


class Crossed(msgspec.Struct, frozen=True):
    """What a crossing leaves for the flip, and what is to be closed when the tenant has been let in."""

    shut_at: float
    """When the fence was shut, by the monotonic clock."""
    at_hand: AsyncSession
    """In the catalog, for the flip."""
    connections: AsyncExitStack


class Work:
    def __init__(self, move: Move, around: Surroundings, source: End, target: End) -> None:
        self.move = move
        self.around = around
        self.ends = {Side.SOURCE: source, Side.TARGET: target}
        self.streams = Streams(around.objects, self.ends)
        self.wish: Wish | None = move.wish
        self.hold = move.hold
        self.lost = False
        self.reign = move.worker
        """What this lease is known by."""
        self.called_off = 0
        """Cut-overs in this reign."""
        self.copies = 0
        self.crossed: Crossed | None = None
        """From the opening of the new home until the tenant has been told."""
        self._news = asyncio.Condition()
        self._told: set[asyncio.Task[None]] = set()

    @property
    def source(self) -> End:
        return self.ends[Side.SOURCE]

    @property
    def target(self) -> End:
        return self.ends[Side.TARGET]

    @property
    def settings(self) -> MigratorSettings:
        return self.around.settings

    def hear(self, wish: Wish | None, *, hold: bool) -> None:
        """The lease's renewal brings what people wish."""
        if (wish, hold) != (self.wish, self.hold):
            self.wish, self.hold = wish, hold
            self._tell()

    def lose(self) -> None:
        self.lost = True
        self._tell()

    def _tell(self) -> None:
        async def tell() -> None:
            async with self._news:
                self._news.notify_all()

        task = asyncio.create_task(tell())
        self._told.add(task)
        task.add_done_callback(self._told.discard)

    async def news(self, timeout_s: float | None = None) -> None:
        """Return when a wish or the loss of the lease has been heard, or after the time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait()

    async def waiting(self, error: Exception, pause_s: float) -> None:
        """Say in the catalog what the move waits for, and wait; somebody's wish ends the wait."""
        detail = error.detail if isinstance(error, StrataError) else f"{type(error).__name__}: {error}"
        # Without the catalog there is nobody to tell.
        with contextlib.suppress(Exception):
            await self.note(waiting=detail)
        if not isinstance(error, CalledOffError):
            # Whatever broke, the streams are started afresh; those of a cut-over that was late are sound.
            await self.streams.close_all()
            # A server that was failed over has another address by now.
            with contextlib.suppress(Exception):
                await self.look_again()
        await self.news(pause_s)
        if self.lost:
            raise SupersededError(self.move.id, self.move.attempt)

    async def note(self, **progress: Any) -> bool:  # noqa: ANN401 - numbers and names, as JSON
        """Write progress for those who watch; None takes a value away. False: the attempt is over."""
        known = {**self.move.progress, **progress}
        self.move = msgspec.structs.replace(
            self.move, progress={name: value for name, value in known.items() if value is not None}
        )
        return await self.around.moves.note(self.move, progress=self.move.progress)

    async def next_copy(self) -> None:
        """Another number, so that nothing of an earlier copy is taken for a part of this one."""
        self.copies += 1
        number = self.move.number + 1
        if not await self.around.moves.note(self.move, number=number):
            raise SupersededError(self.move.id, self.move.attempt)
        self.move = msgspec.structs.replace(self.move, number=number, progress={})

    async def let_streams_go(self) -> None:
        """Close them and drop what they are made of: nothing makes a server keep its log for this move any more."""
        await self.streams.close_all()
        await self.around.objects.drop_streams(self.move.id, self.ends)

    async def fence_off_the_past(self) -> None:
        """After a take-over: nobody of an earlier attempt writes in either cell from now on."""
        for end in self.ends.values():
            await self.fence_off(end)
        for direction in Direction:
            name = stream_name(self.move, direction)
            _, destination = self.streams.ends_of(direction)
            if self.is_made(destination) and await destination.is_there():
                await end_applier(destination.dsn, name)
                async with destination.admin() as connection:
                    await connection.execute(_RESTAMP, name, destination.attempt)

    async def fence_off(self, end: End) -> None:
        if self.is_made(end) and await end.is_there() and not await end.stamp():
            raise SupersededError(self.move.id, self.move.attempt)

    async def let_crossing_go(self) -> None:
        if self.crossed is not None:
            crossed, self.crossed = self.crossed, None
            # They have done what they were for. One that cannot be closed in order is gone.
            with contextlib.suppress(SQLAlchemyError, *NO_ANSWER):
                await crossed.connections.aclose()

    async def look_again(self) -> None:
        """After a cell has been made: what is known of the ends was read before."""
        sites = self.around.sites
        # The attempt of this reign: one that was called off since has changed the move's, not the cells'.
        of_the_reign = msgspec.structs.replace(self.move, attempt=self.source.attempt)
        self.ends[Side.SOURCE] = await sites.source(of_the_reign)
        self.ends[Side.TARGET] = await sites.target(of_the_reign)

    @staticmethod
    def is_made(end: End) -> bool:
        """Whether the end's cell is there: a dedicated target is registered before it is made."""
        return end.site.cell.timeline is not None
