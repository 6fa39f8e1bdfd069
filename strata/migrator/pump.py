"""The loop between a stream and an applier: reads, collects a batch, hands it over, stops where it is told to.

While one batch is being applied the next is read, and nothing else is buffered. What comes in meanwhile is the next, so
batches grow with the load by themselves; where there is little load, a batch waits a moment for more to join it, since
to apply one transaction takes nearly as much as ten. Nobody waits for that who waits for the target to be in step.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import msgspec

from strata.migrator.applier import Applier, Prepared
from strata.migrator.coalescing import Batch
from strata.migrator.pgoutput import (
    NEW_TUPLE,
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Relation,
    Truncate,
    Update,
    commit_end,
)
from strata.migrator.replication_errors import ProtocolError, StreamLostError, TruncateError
from strata.migrator.stream import Keepalive, Stream
from strata.migrator.transactions import Transactions
from strata.platform.database.lsn import Lsn

_YIELD_EVERY_MESSAGES = 200
_UPDATE, _BEGIN, _COMMIT = b"UBC"
_RELATION_ID = struct.Struct("!I")


class PumpOptions(msgspec.Struct, frozen=True):
    batch_bytes: int = 8 * 1024 * 1024
    """A batch goes to the target at the latest when it holds this much; in mid-transaction, too."""
    settle_bytes: int = 4 * 1024 * 1024
    """From here on it goes at the next commit."""
    gather_s: float = 0.02
    """How long a whole transaction waits for others to join it, while nobody is in a hurry."""
    idle_progress_s: float = 5.0
    """How often the progress row follows a source on which only others write."""
    stall_s: float = 30.0
    """How long the source may fall silent in mid-transaction before the target's open one is given up."""


class Changes:
    """Wakes those who wait for something to have become true."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def announce(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def next(self) -> None:
        await self._event.wait()


class Pump:
    def __init__(self, stream: Stream, applier: Applier, marker_prefix: str, options: PumpOptions) -> None:
        self._stream = stream
        self._applier = applier
        self._marker_prefix = marker_prefix
        self._options = options
        self._transactions = Transactions()
        self._relations: dict[int, Relation] = {}
        self._batch = Batch(applier.keys)
        self._inside = False
        self._position: Lsn | None = None
        """Where the last whole transaction ended, if that has not been handed over."""
        self._whole_since_s = 0.0
        """When the first of those had come."""
        self._hurried = 0
        self._marker: str | None = None
        self._applying: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._persisted_s = time.monotonic()
        self._halt = False
        self._limit: Lsn | None = None
        self.changes = Changes()
        self.halted = False
        self.transactions = 0
        self.passed = applier.progress.position
        """Nothing before it is missing on the target; ahead of the progress row while only others write."""

    def stop_at(self, limit: Lsn | None) -> None:
        """Halt before the first transaction that commits at or after `limit`; None: at the next commit."""
        self._halt = limit is None
        self._limit = limit
        self._resume()

    def go(self) -> None:
        self._halt, self._limit = False, None
        self._resume()

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """During the block what is whole goes to the applier as soon as that is free."""
        self._hurried += 1
        self._wake.set()
        try:
            yield
        finally:
            self._hurried -= 1

    def _resume(self) -> None:
        self.halted = False
        self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled or fails; takes its share of the processor in small pieces."""
        try:
            while True:
                if await self._read_some():
                    await asyncio.sleep(0)
                else:
                    await self._idle()
        finally:
            self._transactions.close()
            if self._applying is not None:
                self._applying.cancel()
                await asyncio.gather(self._applying, return_exceptions=True)

    async def _read_some(self) -> bool:
        """Whether there may be more at hand."""
        for _ in range(_YIELD_EVERY_MESSAGES):
            frame = self._stream.poll()
            if frame is None:
                return False
            if isinstance(frame, Keepalive):
                await self._keepalive(frame)
            elif not self._took_plainly(frame):
                taken = self._transactions.take(frame)
                if isinstance(taken, Generator):
                    await self._replay(taken)
                elif taken is not None:
                    await self._act(taken)
            elif self._full():
                await self._hand_over()
        return True

    def _took_plainly(self, frame: bytes) -> bool:
        """Whether it was a beginning, a commit or an update of a known table that leaves the key alone, and has been
        seen to. A backlog consists of these, so they take no detour over objects and coroutines.
        """
        kind = frame[0]
        if kind == _UPDATE:
            relation_id = _RELATION_ID.unpack_from(frame, 1)[0]
            plain = frame[5] == NEW_TUPLE and self._transactions.passing and relation_id in self._applier.keys
            if plain:
                self._batch.replace(relation_id, frame[6:])
            return plain
        if kind == _COMMIT:
            self._end(commit_end(frame))
            return True
        if kind == _BEGIN and self._transactions.passing and not self._halt and self._limit is None:
            self._inside = True
            return True
        return False

    def _end(self, position: Lsn) -> None:
        self._inside = False
        if self._position is None:
            self._whole_since_s = time.monotonic()
        self._position = position
        self.transactions += 1

    def _full(self) -> bool:
        if self._inside:
            return self._batch.size_bytes >= self._options.batch_bytes
        return self._batch.size_bytes >= self._options.settle_bytes or self._marker is not None

    async def _replay(self, messages: Iterator[Message]) -> None:
        for number, message in enumerate(messages):
            await self._act(message)
            if number % _YIELD_EVERY_MESSAGES == 0:
                await asyncio.sleep(0)

    async def _act(self, message: Message) -> None:
        match message:
            case Update() | Insert() | Delete():
                if message.relation_id not in self._applier.keys:
                    await self._describe(message.relation_id)
                self._batch.add(message)
            case Begin():
                while self._stop_due(message.commit_lsn):
                    await self._rest()
                self._inside = True
                return
            case Commit():
                self._end(message.end_lsn)
            case _:
                await self._act_on_rare(message)
                return
        if self._full():
            await self._hand_over()

    async def _act_on_rare(self, message: Message) -> None:
        match message:
            case Relation():
                self._relations[message.id] = message
                # Again, because it may have been altered. One that is new is looked at when a row of it comes: partitions
                # are described too, though their rows go by the name of the root.
                if message.id in self._applier.keys:
                    await self._describe(message.id)
            case Truncate(relation_ids=relation_ids):
                known = [self._relations[each] for each in relation_ids if each in self._relations]
                raise TruncateError([f"{each.schema}.{each.table}" for each in known])
            case LogicalMessage(transactional=True, prefix=prefix) if prefix == self._marker_prefix:
                self._marker = message.content.decode(errors="replace")
            case _:
                pass

    async def _describe(self, relation_id: int) -> None:
        relation = self._relations.get(relation_id)
        if relation is None:
            raise ProtocolError(f"a change of relation {relation_id}, which has not been described")
        # The applier's session answers one question at a time.
        await self._settled()
        await self._applier.describe(relation)

    async def _hand_over(self) -> None:
        """Give the batch to the applier as soon as that is free. In mid-transaction its transaction stays open."""
        prepared = self._applier.prepare(self._batch)
        self._batch = Batch(self._applier.keys)
        await self._settled()
        position, marker = None, None
        if not self._inside:
            position, self._position = self._position, None
            marker, self._marker = self._marker, None
        self._applying = asyncio.create_task(self._apply(prepared, position, marker))
        self._applying.add_done_callback(lambda _: self._wake.set())

    async def _apply(self, prepared: Prepared, position: Lsn | None, marker: str | None) -> None:
        await self._applier.apply(prepared, position, marker)
        if position is not None:
            self.passed = max(self.passed, position)
            self._persisted_s = time.monotonic()
            self.changes.announce()

    async def _settled(self) -> None:
        """Wait for the batch that is being applied; raises what became of it."""
        if (applying := self._applying) is not None:
            await asyncio.wait({applying})
            self._applying = None
            applying.result()

    async def _idle(self) -> None:
        """Nothing to read: let the applier have what is whole, rest if that is due, wait for whatever comes first."""
        if self._applying is not None and self._applying.done():
            await self._settled()
        wait_s = self._options.stall_s if self._inside and self._applier.open else None
        if not self._inside and self._applying is None:
            if self._position is None:
                if self._stop_due(self.passed):
                    await self._rest()
                    return
            elif (gathering_s := self._gathering_s(self._position)) > 0:
                wait_s = gathering_s
            else:
                await self._hand_over()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._stream.fileno(), self._wake.set)
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            if self._inside:
                raise StreamLostError(f"silent for {wait_s:.0f} s in the middle of a transaction") from None
        finally:
            loop.remove_reader(self._stream.fileno())
        self._wake.clear()

    def _gathering_s(self, position: Lsn) -> float:
        """How long what is whole, up to the position, may still wait for more."""
        if self._hurried or self._stop_due(position):
            return 0.0
        return self._whole_since_s + self._options.gather_s - time.monotonic()

    def _stop_due(self, at: Lsn) -> bool:
        return self._halt or (self._limit is not None and at >= self._limit)

    async def _rest(self) -> None:
        """At a commit, with everything read applied and nothing open on the target."""
        if self._position is not None:
            await self._hand_over()
        await self._settled()
        self.halted = True
        self.changes.announce()
        while self.halted:
            await self._wake.wait()
            self._wake.clear()

    async def _keepalive(self, keepalive: Keepalive) -> None:
        """The source has sent all that committed before this position. That counts only if all of it has been applied."""
        if self._inside or self._position is not None or (self._applying is not None and not self._applying.done()):
            return
        await self._settled()
        if keepalive.position > self.passed:
            self.passed = keepalive.position
            self.changes.announce()
        behind_s = time.monotonic() - self._persisted_s
        # A source that shuts down asks, and waits until everything is confirmed.
        due_s = min(1.0, self._options.idle_progress_s) if keepalive.reply_requested else self._options.idle_progress_s
        if self.passed > self._applier.progress.position and behind_s >= due_s:
            await self._applier.advance(self.passed)
            self._persisted_s = time.monotonic()
