"""Applies changes to the target: changes and progress row in one transaction, in one session that alone may do so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import msgspec
import psycopg
from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from strata.migrator.apply_statements import (
    Operation,
    Statement,
    TextArray,
    TextArrayDumper,
    key_arrays,
    missing_keys_sql,
    rewrite,
    statements,
)
from strata.migrator.apply_tables import Route, TargetTable, target_table
from strata.migrator.coalescing import Batch, TableKey
from strata.migrator.origins import hold_origin
from strata.migrator.pgoutput import Relation
from strata.migrator.progress import Progress, advancing, progress_of
from strata.migrator.replication_errors import (
    AttemptSupersededError,
    MissingRowError,
    ProgressMissingError,
    SchemaChangedError,
    TargetLostError,
    UnappliableError,
)
from strata.migrator.sessions import Session, target_session
from strata.platform.database.lsn import Lsn

# replica: what triggers and cascades did on the source is in the stream already, and net changes, sorted by table,
# know no order in which every foreign key holds. The source has checked each of them before it committed.
# Nested loops alone: a batch is small, the table may be large and may never have been analysed; an index lookup for
# each key is right then, where a planner that believes in an empty table would read all of it.
_SESSION = """
    SELECT pg_catalog.set_config(name, value, false)
      FROM (VALUES ('search_path', ''), ('session_replication_role', 'replica'), ('row_security', 'off'),
                   ('datestyle', 'ISO'), ('intervalstyle', 'postgres'), ('timezone', 'UTC'), ('xmloption', 'content'),
                   ('synchronous_commit', 'on'), ('statement_timeout', '0'), ('lock_timeout', '60s'),
                   ('idle_in_transaction_session_timeout', '60s'), ('idle_session_timeout', '0'),
                   ('transaction_timeout', '0'), ('jit', 'off'), ('plan_cache_mode', 'force_generic_plan'),
                   ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off')) AS v (name, value)
     WHERE EXISTS (SELECT FROM pg_catalog.pg_settings s WHERE lower(s.name) = v.name)
"""
# An applier that was stopped in mid-transaction must not hold it for long: idle_in_transaction_session_timeout above.
# 23505 and 23P01: two rows of a batch trade values that must be unique.
_TRADED = (psycopg.errors.UniqueViolation, psycopg.errors.ExclusionViolation)


class Applied(msgspec.Struct):
    """Counts since the session began."""

    segments: int = 0
    changes: int = 0
    statements: int = 0
    rows: int = 0
    vacated: int = 0


class Prepared(msgspec.Struct, frozen=True):
    batch: Batch
    statements: Sequence[Statement]


class Applier:
    """Made by `applying`. Not for use by two tasks at once."""

    def __init__(self, connection: Session, progress: Progress, route: Route) -> None:
        self._connection = connection
        self._route = route
        self._tenant = str(route.tenant_id).encode()
        self._tables: dict[int, TargetTable] = {}
        self._open = False
        self.keys: dict[int, TableKey] = {}
        self.progress = progress
        self.applied = Applied()

    @property
    def open(self) -> bool:
        """Whether a target transaction waits for the rest of a source transaction."""
        return self._open

    async def describe(self, relation: Relation) -> None:
        """Must come before the first change of the relation; raises when it does not fit the target."""
        with _translated():
            table = await target_table(self._connection, relation, self._route)
        known = self._tables.get(relation.id)
        if known is not None and known != table:
            raise SchemaChangedError(table.label, "was altered while it was being moved")
        self._tables[relation.id] = table
        self.keys[relation.id] = table.key

    def prepare(self, batch: Batch) -> Prepared:
        """What takes the processor's time, and no answer from the target: done while the batch before is applied."""
        return Prepared(batch, list(self._statements(batch, vacate=False)))

    async def apply(self, prepared: Prepared, position: Lsn | None, marker: str | None = None) -> None:
        """Apply what a batch holds. `position`: where the source stands after it; None: in mid-transaction there, so
        the target's transaction stays open for the rest.
        """
        progress = None if position is None else msgspec.structs.replace(self.progress, position=position)
        if progress is not None and marker is not None:
            progress = msgspec.structs.replace(progress, marker=marker)
        with _translated():
            try:
                await self._attempt(prepared.statements, progress, again=False)
            except _TRADED:
                await self._undo_segment()
                self.applied.vacated += 1
                await self._attempt(list(self._statements(prepared.batch, vacate=True)), progress, again=True)
            if progress is None:
                self._open = True
            else:
                await self._connection.execute("COMMIT")
                self._open = False
                self.progress = progress
        self.applied.segments += 1
        self.applied.changes += prepared.batch.changes

    async def advance(self, position: Lsn) -> None:
        """Note that there is nothing for this target up to `position`."""
        await self.apply(Prepared(Batch(self.keys), []), position)

    async def abandon(self) -> None:
        """Give up an open transaction: the source will send its own again."""
        await self._connection.execute("ROLLBACK")
        self._open = False

    @asynccontextmanager
    async def exported_snapshot(self) -> AsyncIterator[str]:
        """The target as it is between two transactions of this session, for others to import during the block."""
        with _translated():
            await self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                row = await (await self._connection.execute("SELECT pg_catalog.pg_export_snapshot()")).fetchone()
                assert row is not None  # noqa: S101 - a SELECT without FROM has one row
                yield str(row[0])
            finally:
                if not self._connection.closed:
                    await self._connection.execute("ROLLBACK")

    async def _attempt(self, wanted: Sequence[Statement], progress: Progress | None, *, again: bool) -> None:
        sent: list[tuple[Statement, AsyncCursor[TupleRow]]] = []
        moved: AsyncCursor[TupleRow] | None = None
        execute = self._connection.execute
        async with self._connection.pipeline():
            if not self._open:
                await execute("BEGIN")
            elif not again:
                await execute("SAVEPOINT segment")
            for statement in wanted:
                cursor = await execute(statement.sql, statement.arrays, prepare=True)
                sent.append((statement, cursor))
            if self._open:
                await execute("RELEASE segment")
            if progress is not None:
                moved = await execute(*advancing(progress))
        for statement, cursor in sent:
            self.applied.statements += 1
            self.applied.rows += cursor.rowcount
            if statement.exact and cursor.rowcount != len(statement.keys):
                await self._fail_for_missing(statement, cursor.rowcount)
        if moved is not None and moved.rowcount != 1:
            await self.abandon()
            raise AttemptSupersededError(self.progress.origin, self.progress.attempt)

    def _statements(self, batch: Batch, *, vacate: bool) -> Iterator[Statement]:
        for stage in batch.stages:
            for relation_id, rows in stage.tables.items():
                yield from statements(self._tables[relation_id], rows, self._tenant, vacate=vacate)
            if stage.rename is not None:
                table = self._tables[stage.rename.relation_id]
                yield rewrite(table, self._tenant, [(stage.rename.old_key, stage.rename.new)])

    async def _undo_segment(self) -> None:
        await self._connection.execute("ROLLBACK TO segment" if self._open else "ROLLBACK")

    async def _fail_for_missing(self, statement: Statement, found: int) -> None:
        await self.abandon()
        missing: Sequence[TupleRow] = ()
        if statement.operation is not Operation.INSERT:
            sql = missing_keys_sql(statement.table, self._tenant)
            missing = await (await self._connection.execute(sql, key_arrays(statement.keys))).fetchall()
        raise MissingRowError(statement.table.label, statement.operation, len(statement.keys), found, missing)


@asynccontextmanager
async def applying(dsn: str, origin: str, attempt: int, route: Route) -> AsyncIterator[Applier]:
    """The applier of `origin`, for the length of the block: a second one is refused by PostgreSQL, ApplierBusyError."""
    async with target_session(dsn) as connection:
        connection.prepared_max = 500
        connection.adapters.register_dumper(TextArray, TextArrayDumper)
        with _translated():
            await connection.execute(_SESSION)
            await hold_origin(connection, origin)
            progress = await progress_of(connection, origin)
        if progress is None:
            raise ProgressMissingError(origin)
        if progress.attempt != attempt:
            raise AttemptSupersededError(origin, attempt)
        yield Applier(connection, progress, route)


@contextmanager
def _translated() -> Iterator[None]:
    """The driver's errors, as what they mean for a move."""
    try:
        yield
    except psycopg.OperationalError as error:
        # Lost connections, and what another try may well not meet: a deadlock, a lock, a full disk that was cleared.
        raise TargetLostError(error) from error
    except psycopg.Error as error:
        raise UnappliableError(error.diag.message_primary or error, error.sqlstate) from error
