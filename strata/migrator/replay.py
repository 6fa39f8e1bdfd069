"""Keeps a target in step with a slot, in the background, for the length of a block.

Memory is bounded by the batch that is read and the one that is applied (PumpOptions.batch_bytes each, with what Python
and the statements' parameters add to them), and some copies of the greatest single row; not by the size of a
transaction or of the backlog.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import msgspec

from strata.migrator.applier import Applied, Applier, applying
from strata.migrator.apply_tables import Route
from strata.migrator.progress import Durability
from strata.migrator.pump import Pump, PumpOptions
from strata.migrator.replication_errors import StreamLostError
from strata.migrator.sessions import Session, source_session, target_session
from strata.migrator.slots import SlotPin
from strata.migrator.stream import Stream, StreamOptions, streaming
from strata.platform.database.lsn import Lsn, parse_lsn

_PING_S = 0.02


class Source(msgspec.Struct, frozen=True):
    dsn: str
    pin: SlotPin
    publication: str


class Target(msgspec.Struct, frozen=True):
    dsn: str
    origin: str
    attempt: int


class ReplayOptions(msgspec.Struct, frozen=True):
    pump: PumpOptions = PumpOptions()
    stream: StreamOptions = StreamOptions()
    tick_s: float = 1.0
    """How often the source is told what is safe, and that we live: also while halted."""


class ReplayStatus(msgspec.Struct, frozen=True):
    received: Lsn
    applied: Lsn
    """In the progress row."""
    passed: Lsn
    """Nothing before it is missing on the target; ahead of `applied` while only others write."""
    confirmed: Lsn
    """What the source was told: safe on the target and its standbys."""
    transactions: int
    applier: Applied
    halted: bool


def marker_prefix(tenant_id: UUID) -> str:
    """What to pass to pg_logical_emit_message, so that other moves out of the same database let the marker pass."""
    return f"strata.move/{tenant_id}"


class Replay:
    """Made by `replaying`. Every call that waits raises what has stopped the replay, if that happens meanwhile."""

    def __init__(
        self,
        stream: Stream,
        applier: Applier,
        *,
        source: Source,
        route: Route,
        monitor: Session,
        options: ReplayOptions,
    ) -> None:
        self._stream = stream
        self._applier = applier
        self._source = source
        self._monitor = monitor
        self._options = options
        self._durability = Durability()
        self._pump = Pump(stream, applier, marker_prefix(route.tenant_id), options.pump)
        self._failure: BaseException | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def status(self) -> ReplayStatus:
        return ReplayStatus(
            received=self._stream.received,
            applied=self._applier.progress.position,
            passed=self._pump.passed,
            confirmed=self._stream.confirmed,
            transactions=self._pump.transactions,
            applier=msgspec.structs.replace(self._applier.applied),
            halted=self._pump.halted,
        )

    async def lag_bytes(self) -> int:
        """How much log the source has written that has not been dealt with here.

        With synchronous_commit off, commits that can be seen may not have been written yet: to be sure of all of them
        use a marker.
        """
        async with source_session(self._source.dsn) as connection:
            return await self._lag_bytes(connection)

    async def _lag_bytes(self, source: Session) -> int:
        row = await (await source.execute("SELECT pg_catalog.pg_current_wal_flush_lsn()::text")).fetchone()
        assert row is not None  # noqa: S101 - a SELECT without FROM has one row
        return max(0, parse_lsn(row[0]) - self._pump.passed)

    async def failed(self) -> None:
        """Wait for ever, or raise what has stopped the replay."""
        await self._until(lambda: False)

    async def caught_up(self, within_bytes: int = 64 * 1024) -> None:
        with self._pump.hurried():
            # One for all the looks: to open one takes the source longer than to answer.
            async with source_session(self._source.dsn) as source:
                while await self._lag_bytes(source) > within_bytes:
                    self._stream.confirm(self._durability.safe, ask=True)
                    await self._until(lambda: False, timeout_s=_PING_S)

    async def halt(self) -> None:
        """Returns when all that was read has been applied and nothing more will be. Keepalives are still answered."""
        self._pump.stop_at(None)
        await self._until(self._halted)

    def go(self) -> None:
        self._pump.go()

    @asynccontextmanager
    async def target_snapshot_at(self, point: Lsn) -> AsyncIterator[str]:
        """From halted to halted: apply exactly the transactions that committed before `point`, a slot's consistent
        point, then show the target as it is as a snapshot to import during the block (migrator protocol, step 4).
        """
        if not self._pump.halted:
            message = "halt() before the slot is made: what is applied meanwhile could lie beyond its consistent point"
            raise RuntimeError(message)
        self._pump.stop_at(point)
        while not self._halted():
            self._stream.confirm(self._durability.safe, ask=True)
            await self._until(self._halted, timeout_s=_PING_S)
        async with self._applier.exported_snapshot() as name:
            yield name

    async def apply_until_marker(self, name: str) -> Lsn:
        """The progress once a transaction that emitted `name` under marker_prefix() has been applied, now or earlier."""
        with self._pump.hurried():
            await self._until(lambda: self._applier.progress.marker == name)
        return self._applier.progress.position

    def _halted(self) -> bool:
        return self._pump.halted

    def start(self) -> None:
        for work in (self._pump.run(), self._tick()):
            self._begin(work)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._note_end)
        self._tasks.append(task)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            error: BaseException = StreamLostError("the replay was ended")
        else:
            error = task.exception() or StreamLostError("it came to an end")
        self._failure = self._failure or error
        for other in self._tasks:
            other.cancel()
        self._pump.changes.announce()

    async def _tick(self) -> None:
        while True:
            safe = await self._durability.observe(self._monitor, self._applier.progress.position)
            self._stream.confirm(safe, ask=True)
            await asyncio.sleep(self._options.tick_s)

    async def _until(self, holds: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Wait until it holds, or for that long."""
        try:
            async with asyncio.timeout(timeout_s):
                while not holds():
                    if self._failure is not None:
                        raise self._failure
                    await self._pump.changes.next()
        except TimeoutError:
            if timeout_s is None:
                raise


@asynccontextmanager
async def replaying(
    source: Source, target: Target, route: Route, options: ReplayOptions | None = None
) -> AsyncIterator[Replay]:
    """First the origin on the target, which one session alone can hold; then the slot, from where the target stands."""
    options = options or ReplayOptions()
    async with AsyncExitStack() as stack:
        applier = await stack.enter_async_context(applying(target.dsn, target.origin, target.attempt, route))
        monitor = await stack.enter_async_context(target_session(target.dsn))
        stream = await stack.enter_async_context(
            streaming(source.dsn, source.pin, source.publication, applier.progress.position, options.stream)
        )
        replay = Replay(stream, applier, source=source, route=route, monitor=monitor, options=options)
        replay.start()
        try:
            yield replay
        finally:
            await replay.stop()
