"""Logical replication slots: made with an exported snapshot, under a deadline; pinned; dropped even when orphaned.

Making a slot waits for every transaction in the cluster that has written something, in other databases too. A client
that dies while it waits leaves its walsender waiting: that one is ended before the slot is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

import msgspec
import psycopg
from psycopg.rows import TupleRow

from strata.migrator.replication_errors import Blocker, SlotBlockedError, SnapshotLostError
from strata.migrator.sessions import Reign, Session, held, source_session, walsender
from strata.platform.database.lsn import Lsn, parse_lsn
from strata.platform.database.names import quoted

# One statement for all versions: those that a server does not know are left out.
WITHOUT_TIMEOUTS = """
    SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings
     WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
                    'idle_session_timeout', 'transaction_timeout')
"""
_BLOCKERS = """
    SELECT pid, datname, usename, application_name, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age
      FROM pg_catalog.pg_stat_activity
     WHERE backend_xid IS NOT NULL AND pid <> %(maker)s
     UNION ALL
    SELECT NULL, database, owner, gid, extract(epoch FROM clock_timestamp() - prepared)::float8
      FROM pg_catalog.pg_prepared_xacts
     ORDER BY age DESC LIMIT 10
"""
_STATE = """
    SELECT s.plugin, s.database, s.confirmed_flush_lsn::text, s.restart_lsn::text, s.wal_status, s.active_pid,
           pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn)::bigint
      FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = %s
"""


class SlotPin(msgspec.Struct, frozen=True):
    """What tells a slot from another of the same name: kept with the move, compared at every start."""

    name: str
    consistent_point: Lsn
    system_identifier: str
    timeline: int


class SlotState(msgspec.Struct, frozen=True):
    plugin: str
    database: str
    confirmed_flush: Lsn | None
    restart_lsn: Lsn | None
    wal_status: str | None
    active_pid: int | None
    kept_bytes: int | None
    """How much of its log the source keeps because of this slot."""


class ExportedSlot:
    def __init__(self, pin: SlotPin, snapshot_name: str, dsn: str, connection: Session, holder_start: str) -> None:
        self.pin = pin
        self.snapshot_name = snapshot_name
        self._dsn = dsn
        self._connection = connection
        self._holder_start = holder_start

    async def check_alive(self) -> None:
        """Raise SnapshotLostError unless the snapshot can still be imported. Its own session may run nothing."""
        if self._connection.closed:
            self._lost("the connection is closed")
        async with source_session(self._dsn) as connection:
            found = await connection.execute(
                "SELECT FROM pg_catalog.pg_stat_activity"
                " WHERE pid = %s AND backend_start::text = %s AND state LIKE 'idle in transaction%%'",
                (self._connection.info.backend_pid, self._holder_start),
            )
            if not found.rowcount:
                self._lost("its session is not there any more")

    def _lost(self, reason: str) -> NoReturn:
        raise SnapshotLostError(self.pin.name, reason)


@asynccontextmanager
async def exported_slot(
    dsn: str,
    name: str,
    *,
    deadline_s: float,
    temporary: bool = False,
    require_wanted: Callable[[], Awaitable[object]] | None = None,
) -> AsyncIterator[ExportedSlot]:
    """Make a slot. Its snapshot can be imported during the block and shows exactly what the slot will not send.

    The slot stays after the block, unless it is temporary or could not be made. Raises SlotBlockedError.
    `require_wanted` raises when the slot came too late: a slot is part of no transaction that could hold something. It is
    dropped then.
    """
    async with walsender(dsn) as connection:
        await connection.execute(WITHOUT_TIMEOUTS)
        system = await (await connection.execute("IDENTIFY_SYSTEM")).fetchone()
        started = await (
            await connection.execute(
                "SELECT backend_start::text FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid())"
            )
        ).fetchone()
        assert system is not None  # noqa: S101 - always one row
        assert started is not None  # noqa: S101 - ourselves
        command = f"CREATE_REPLICATION_SLOT {quoted(name)}{' TEMPORARY' if temporary else ''} LOGICAL pgoutput (SNAPSHOT 'export')"
        made = await _within(deadline_s, dsn, name, connection, command)
        if require_wanted is not None:
            try:
                await require_wanted()
            except BaseException:
                await drop_slot(dsn, name)
                raise
        pin = SlotPin(name, parse_lsn(made[1]), str(system[0]), int(system[1]))
        yield ExportedSlot(pin, made[2], dsn, connection, started[0])


async def _within(deadline_s: float, dsn: str, name: str, connection: Session, command: str) -> TupleRow:
    pid = connection.info.backend_pid
    creation = asyncio.ensure_future(connection.execute(command))
    try:
        await asyncio.wait({creation}, timeout=deadline_s)
        if creation.done():
            row = await creation.result().fetchone()
            assert row is not None  # noqa: S101 - the command answers with one
            return row
        async with source_session(dsn) as administrator:
            found = await (await administrator.execute(_BLOCKERS, {"maker": pid})).fetchall()
        raise SlotBlockedError(name, deadline_s, [Blocker(*row) for row in found])
    finally:
        if not creation.done():
            # The walsender does not look at its socket while it waits; left alone it would finish the slot, for nobody.
            async with source_session(dsn) as administrator:
                await administrator.execute("SELECT pg_catalog.pg_terminate_backend(%s, 5000)", (pid,))
            await asyncio.gather(creation, return_exceptions=True)


async def slot_state(dsn: str, name: str) -> SlotState | None:
    async with source_session(dsn) as connection:
        return await slot_state_of(connection, name)


async def slot_state_of(connection: Session, name: str) -> SlotState | None:
    row = await (await connection.execute(_STATE, (name,))).fetchone()
    if row is None:
        return None
    plugin, database, confirmed, restart, wal_status, active_pid, kept = row
    return SlotState(
        plugin=plugin,
        database=database,
        confirmed_flush=parse_lsn(confirmed) if confirmed else None,
        restart_lsn=parse_lsn(restart) if restart else None,
        wal_status=wal_status,
        active_pid=active_pid,
        kept_bytes=kept,
    )


async def drop_slot(dsn: str, name: str, reign: Reign | None = None, *, timeout_s: float = 30) -> None:
    """Whoever uses it is ended first. Does nothing if there is no such slot."""
    async with source_session(dsn) as connection, asyncio.timeout(timeout_s):
        while True:
            try:
                async with held(connection, reign):
                    if not await free_slot(connection, name):
                        return
                    await connection.execute("SELECT pg_catalog.pg_drop_replication_slot(%s)", (name,))
            except psycopg.errors.ObjectInUse:
                # Somebody was quicker: a consumer that starts again by itself.
                await asyncio.sleep(0.05)
            except psycopg.errors.UndefinedObject:
                return


async def free_slot(connection: Session, name: str) -> bool:
    """End whoever uses the slot; whether there is one."""
    while (state := await slot_state_of(connection, name)) is not None and state.active_pid is not None:
        await connection.execute("SELECT pg_catalog.pg_terminate_backend(%s, 1000)", (state.active_pid,))
    return state is not None
