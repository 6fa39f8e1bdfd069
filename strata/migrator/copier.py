"""Copy a tenant's rows as they stand in one exported snapshot (migrator protocol, step 2).

Workers share the snapshot and take key ranges, one after the other. A range goes by binary COPY from connection to
connection and is committed when both ends counted the same rows. There is no resuming: in a second snapshot a unique
value may have changed hands and a key may have moved into a range that is done. A copy that ends early is done again
in an emptied target.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Literal

import asyncpg
import msgspec

from strata.migrator.copy_sessions import Rest, Throttle, Warrant, reading, restless, writing
from strata.migrator.ranges import KeyRange, Walk
from strata.migrator.rests import Rests
from strata.migrator.tables import Home, Table, TenantTables
from strata.platform.database.availability import is_unreachable
from strata.platform.database.failures import LOST
from strata.platform.database.names import quoted
from strata.platform.errors import ConflictError, StrataError, UnavailableError

STALLED_S = 120.0
"""So long without a byte, the other end is taken for gone: a severed network says nothing by itself."""
# A commit that waits for the disk, in the session that wrote: all of it is safe, or the session went with the server.
_FLUSH = """
    SET synchronous_commit = on;
    SELECT pg_catalog.pg_logical_emit_message(true, 'strata.copied', '');
"""
PIPE_BYTES = 1024 * 1024
"""With so much under way between the two connections the sender is held back. A chunk is what one read of the socket
brought, 64 to 256 KiB, or one row that is larger: so of rows of any size one at most waits here."""


class CopyInterruptedError(UnavailableError):
    code = "copy-interrupted"
    title = "The copy was interrupted"

    def __init__(self, table: str, reason: object) -> None:
        super().__init__(
            f"Copying {table} was interrupted ({reason}): empty the target and copy again in the snapshot of a new slot."
        )
        self.table = table


class RowsRefusedError(ConflictError):
    code = "rows-refused"
    title = "The target refused rows"

    def __init__(self, table: str, error: asyncpg.PostgresError) -> None:
        # The detail of the error quotes values of the row, which are nobody's business here.
        rule = getattr(error, "constraint_name", None) or getattr(error, "column_name", None) or error.sqlstate
        super().__init__(
            f"The target refused rows of {table} ({rule}): it is not empty, or its tables differ from the source's. "
            "Cancel the move, compare both schemas with strata db status, and start again."
        )
        self.table = table


class RowsLostError(StrataError):
    code = "rows-lost"
    title = "Fewer rows arrived than were sent"

    def __init__(self, table: str, sent: int, arrived: int) -> None:
        super().__init__(f"Of {sent} rows of {table} {arrived} arrived; the target has to be emptied and copied again.")
        self.table = table


class Progress(msgspec.Struct, frozen=True):
    """How far one table is. `estimated_rows` is the planner's guess from before, and may be exceeded."""

    table: str
    rows: int
    size_bytes: int
    estimated_rows: int
    done: bool
    seconds: float
    """Since the copy began."""


class Copied(msgspec.Struct, frozen=True):
    rows: dict[str, int]
    size_bytes: int
    ranges: int
    seconds: float


class Copier:
    def __init__(
        self,
        source: Home,
        target: Home,
        tables: TenantTables,
        *,
        snapshot: str,
        origins: Sequence[str],
        warrant: Warrant | None = None,
        throttle: Throttle | None = None,
        rest: Rest = restless,
    ) -> None:
        """`tables` are the source's. There are as many workers as `origins`, each of which writes under one of its own."""
        self._source = source
        self._target = target
        self._tables = tables
        self._snapshot = snapshot
        self._origins = origins
        self._warrant = warrant or Warrant()
        self._throttle = throttle
        self._rest = rest
        self._exhausted = asyncio.Event()
        self.started = asyncio.Event()
        """Every worker holds the snapshot, and the tables against TRUNCATE and DDL: the exporting session may go."""

    async def run(self, progress: Callable[[Progress], None] | None = None) -> Copied:
        """Copy everything, or raise and have copied who knows what. Cancelled, it leaves no session behind."""
        begun = time.monotonic()
        async with AsyncExitStack() as stack:
            lanes = [await self._lane(stack, number, origin) for number, origin in enumerate(self._origins)]
            await self._hold_tables(lanes[0].source)
            self.started.set()
            tallies = [
                _Tally(table, Walk(table, self._source), await self._estimate(lanes[0].source, table), begun, progress)
                # The biggest first: what is left at the end should be small.
                for table in sorted(self._tables.tables, key=lambda table: (-table.size_bytes, table.name))
            ]
            try:
                async with asyncio.TaskGroup() as group:
                    for lane in lanes:
                        group.create_task(self._work(lane, tallies))
            except BaseExceptionGroup as failures:
                raise _first(failures) from failures
        return Copied(
            rows={tally.table.name: tally.rows for tally in tallies},
            size_bytes=sum(tally.size_bytes for tally in tallies),
            ranges=sum(tally.ranges for tally in tallies),
            seconds=time.monotonic() - begun,
        )

    async def _lane(self, stack: AsyncExitStack, number: int, origin: str) -> _Lane:
        try:
            source = await stack.enter_async_context(reading(self._source, self._snapshot, self._warrant))
        except asyncpg.PostgresError as error:
            # The session that exported it has gone.
            raise CopyInterruptedError(self._tables.schema, error) from error
        target = await stack.enter_async_context(writing(self._target, self._warrant, origin=origin))
        return _Lane(number, source, target, self._target.schema_name, Rests(partial(self._rest, number)))

    async def _hold_tables(self, source: asyncpg.Connection) -> None:
        """Neither TRUNCATE nor a rewriting ALTER TABLE respects snapshots: kept out until the copy has been read."""
        for table in self._tables.tables:
            await source.execute(f"LOCK TABLE {table.qualified} IN ACCESS SHARE MODE")

    async def _estimate(self, source: asyncpg.Connection, table: Table) -> int:
        """How many rows the planner thinks the tenant has. It is used for the display alone."""
        condition = KeyRange(table, self._source.tenant_literal, None, None).condition
        plan: str = await source.fetchval(f"EXPLAIN (FORMAT JSON) SELECT FROM {table.qualified} WHERE {condition}")
        return round(msgspec.json.decode(plan, type=list[_Explained])[0].plan.rows)

    async def _work(self, lane: _Lane, tallies: Sequence[_Tally]) -> None:
        for tally in tallies:
            while True:
                await self._turn(lane)
                with _interruptible(tally.table.name):
                    if not await self._copy_range(lane, tally):
                        break
        self._exhausted.set()
        with _interruptible(self._tables.schema):
            await lane.target.execute(_FLUSH)

    async def _turn(self, lane: _Lane) -> None:
        """Until the throttle lets the worker go on, or the others have left it nothing to do."""
        if self._throttle is None:
            return
        turn = asyncio.ensure_future(self._throttle(lane.number))
        nothing = asyncio.ensure_future(self._exhausted.wait())
        try:
            await asyncio.wait({turn, nothing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            nothing.cancel()
            turn.cancel()
        if turn.done() and not turn.cancelled():
            turn.result()

    async def _copy_range(self, lane: _Lane, tally: _Tally) -> bool:
        begun = time.monotonic()
        found = await tally.walk.take(lane.source)
        if found is None:
            return False
        tally.under_way += 1
        try:
            async with lane.target.transaction():
                await self._warrant.hold(lane.target)
                rows, size_bytes = await _transfer(lane, found)
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
            raise RowsRefusedError(tally.table.name, error) from error
        lasted_s = time.monotonic() - begun
        await lane.rests.lasted(lane.source, lasted_s, rows)
        tally.add(rows, size_bytes, lasted_s)
        return True


@contextmanager
def _interruptible(what: str) -> Iterator[None]:
    try:
        yield
    except LOST as error:
        raise CopyInterruptedError(what, error) from error
    except asyncpg.PostgresError as error:
        if is_unreachable(error):
            raise CopyInterruptedError(what, error) from error
        raise


class _Lane(msgspec.Struct, frozen=True):
    number: int
    source: asyncpg.Connection
    target: asyncpg.Connection
    target_schema: str
    rests: Rests


class _Tally:
    """What has been copied of a table."""

    def __init__(
        self, table: Table, walk: Walk, estimated_rows: int, begun: float, tell: Callable[[Progress], None] | None
    ) -> None:
        self.table = table
        self.walk = walk
        self.rows = self.size_bytes = self.ranges = self.under_way = 0
        self._estimated_rows = estimated_rows
        self._begun = begun
        self._tell = tell

    def add(self, rows: int, size_bytes: int, seconds: float) -> None:
        self.rows += rows
        self.size_bytes += size_bytes
        self.ranges += 1
        self.under_way -= 1
        self.walk.lasted(seconds, rows)
        if self._tell is not None:
            done = self.walk.over and not self.under_way
            elapsed = time.monotonic() - self._begun
            self._tell(Progress(self.table.name, self.rows, self.size_bytes, self._estimated_rows, done, elapsed))


class _Plan(msgspec.Struct, frozen=True):
    rows: float = msgspec.field(name="Plan Rows")


class _Explained(msgspec.Struct, frozen=True):
    plan: _Plan = msgspec.field(name="Plan")


class _Pipe:
    """Bytes from the connection that sends to the one that takes; a slow taker holds the sender back."""

    def __init__(self, deadline: asyncio.Timeout) -> None:
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting_bytes = 0
        self._taken = asyncio.Event()
        self._deadline = deadline
        self.size_bytes = 0

    async def put(self, chunk: bytes) -> None:
        self.size_bytes += len(chunk)
        # What arrives while the deadline strikes comes too late: one that has struck cannot be put off.
        if not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time() + STALLED_S)
        while self._waiting_bytes and self._waiting_bytes + len(chunk) > PIPE_BYTES:
            self._taken.clear()
            await self._taken.wait()
        self._waiting_bytes += len(chunk)
        self._chunks.put_nowait(chunk)

    def end(self) -> None:
        self._chunks.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self._chunks.get()) is not None:
            self._waiting_bytes -= len(chunk)
            self._taken.set()
            yield chunk


async def _transfer(lane: _Lane, found: KeyRange) -> tuple[int, int]:
    """One range from COPY to COPY, undecoded. Ends only when the sender said that it was through, and how many it sent."""
    table = found.table
    columns = [column.name for column in table.copied]
    form: Literal["binary", "text"] = "binary" if all(column.binary for column in table.copied) else "text"
    query = (
        f"SELECT {', '.join(map(quoted, columns))} FROM {table.qualified} WHERE {found.condition}{lane.rests.condition}"  # noqa: S608 - names from pg_catalog, values as literals
    )

    async def send(pipe: _Pipe) -> str:
        # When this fails, the pipe must not end: an end is what the other side takes for the whole.
        status: str = await lane.source.copy_from_query(query, output=pipe.put, format=form)
        pipe.end()
        return status

    async def take(pipe: _Pipe) -> str:
        status: str = await lane.target.copy_to_table(
            table.name, schema_name=lane.target_schema, columns=columns, source=pipe, format=form
        )
        return status

    try:
        async with asyncio.timeout(STALLED_S) as deadline, asyncio.TaskGroup() as group:
            pipe = _Pipe(deadline)
            sent, arrived = group.create_task(send(pipe)), group.create_task(take(pipe))
    except BaseExceptionGroup as failures:
        raise _first(failures) from failures
    if sent.result() != arrived.result():
        raise RowsLostError(table.name, _count(sent.result()), _count(arrived.result()))
    return _count(arrived.result()), pipe.size_bytes


def _count(status: str) -> int:
    return int(status.removeprefix("COPY "))


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that began it: a task group has cancelled the others."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
