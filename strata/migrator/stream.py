"""Reads a slot: START_REPLICATION over libpq's CopyBoth, at the level of psycopg.pq.

Reconnecting is the caller's: only it knows from where.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import msgspec
import psycopg
from psycopg import generators, pq

from strata.migrator.replication_errors import (
    ProtocolError,
    PublicationMissingError,
    SlotAheadError,
    SlotLostError,
    SlotMissingError,
    SlotRecreatedError,
    StreamLostError,
)
from strata.migrator.sessions import Session, source_session, walsender
from strata.migrator.slots import SlotPin, free_slot, slot_state_of
from strata.platform.database.lsn import Lsn, format_lsn
from strata.platform.database.names import literal, quoted

if TYPE_CHECKING:
    from psycopg.abc import PQGen

_ORIGIN_OPTION_SINCE = 160000
_LOST = "lost"
_POSTGRES_EPOCH_S = 946_684_800
_XLOG_DATA, _KEEPALIVE = 0x77, 0x6B  # w, k
_XLOG_HEADER_BYTES = 25
_KEEPALIVE_FORM = struct.Struct("!xQQB")
_FEEDBACK_FORM = struct.Struct("!cQQQQB")
# As native replication asks: the same text whatever the role's or the server's settings say.
_TEXT_FORMS = """
    SELECT pg_catalog.set_config(name, value, false)
      FROM (VALUES ('datestyle', 'ISO'), ('intervalstyle', 'postgres'), ('extra_float_digits', '3'),
                   ('timezone', 'UTC'), ('bytea_output', 'hex'), ('xmloption', 'content')) AS v (name, value)
"""


class Keepalive(msgspec.Struct, frozen=True, gc=False):
    position: Lsn
    """Up to here the source has decoded; every transaction that committed before it has been sent."""
    reply_requested: bool


class StreamOptions(msgspec.Struct, frozen=True):
    origin_none: bool = True
    """Leave out what came to the source by replication, so that the two streams of a retention do not feed each other."""
    streaming: bool = False
    """Receive big transactions while they are in progress: they wait in a file here, and not on the source's disk."""


class Stream:
    """Made by `streaming`. `poll` until it returns None, then `readable`."""

    def __init__(self, connection: Session) -> None:
        self._pgconn = connection.pgconn
        self._received = Lsn(0)
        self._confirmed = Lsn(0)

    @property
    def received(self) -> Lsn:
        return self._received

    @property
    def confirmed(self) -> Lsn:
        """The last position that the source was told it may forget everything before."""
        return self._confirmed

    def poll(self) -> bytes | Keepalive | None:
        """A message of pgoutput, or a keepalive; None: nothing is here yet. Never blocks."""
        pgconn = self._pgconn
        try:
            size, data = pgconn.get_copy_data(1)
            if size == 0:
                pgconn.consume_input()
                size, data = pgconn.get_copy_data(1)
        except psycopg.Error as error:
            raise StreamLostError(error) from error
        if size > 0 and data[0] == _XLOG_DATA:
            return bytes(data[_XLOG_HEADER_BYTES:])
        if size == 0:
            return None
        if size < 0:
            raise StreamLostError(self._ending())
        if data[0] == _KEEPALIVE:
            position, _, reply_requested = _KEEPALIVE_FORM.unpack_from(data)
            if position > self._received:
                self._received = Lsn(position)
            return Keepalive(Lsn(position), bool(reply_requested))
        raise ProtocolError(f"unknown frame {bytes(data[:1])!r}")

    def confirm(self, position: Lsn, *, ask: bool = False) -> None:
        """Tell the source that everything before `position` is safe on the target; doubles as a sign of life.

        `ask` for a keepalive in return. Never tells less than was told before.
        """
        self._confirmed = max(self._confirmed, position)
        received = max(self._received, self._confirmed)
        now_us = int((time.time() - _POSTGRES_EPOCH_S) * 1_000_000)
        # «Applied» is what the source's shutdown and synchronous commits look at; we promise nothing more than flushed.
        message = _FEEDBACK_FORM.pack(b"r", received, self._confirmed, self._confirmed, now_us, int(ask))
        with _translated():
            self._pgconn.put_copy_data(message)
            self._pgconn.flush()

    def fileno(self) -> int:
        return self._pgconn.socket

    def _ending(self) -> str:
        result = self._pgconn.get_result()
        message = result.error_message.decode(errors="replace").strip() if result is not None else ""
        return message or "the source closed it"


@asynccontextmanager
async def streaming(
    dsn: str, pin: SlotPin, publication: str, start: Lsn, options: StreamOptions | None = None
) -> AsyncIterator[Stream]:
    """The slot's changes from `start` on, which is the target's progress row and nothing else.

    Ends whoever else reads the slot: the caller holds the replication origin on the target, and that is the fence.
    """
    options = options or StreamOptions()
    async with walsender(dsn) as connection:
        with _translated():
            await connection.execute(_TEXT_FORMS)
        await _check_publication(connection, publication)
        await _check_slot(dsn, connection, pin, start)
        await _start(connection, pin.name, start, _plugin_options(connection, publication, options))
        yield Stream(connection)


async def _check_publication(connection: Session, publication: str) -> None:
    with _translated():
        found = await connection.execute(
            # A walsender takes no parameters.
            "SELECT p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate, p.pubviaroot"  # noqa: S608 - quoted
            " FROM pg_catalog.pg_publication p WHERE p.pubname = " + literal(publication)
        )
        row = await found.fetchone()
    if row is None:
        raise PublicationMissingError(publication, "is not there")
    if not row[0]:
        raise PublicationMissingError(publication, "does not publish inserts, updates, deletes and truncates")
    if not row[1]:
        raise PublicationMissingError(publication, "does not publish partitions through their root")


async def _check_slot(dsn: str, connection: Session, pin: SlotPin, start: Lsn) -> None:
    with _translated():
        system = await (await connection.execute("IDENTIFY_SYSTEM")).fetchone()
        async with source_session(dsn) as administrator, asyncio.timeout(30):
            await free_slot(administrator, pin.name)
            state = await slot_state_of(administrator, pin.name)
    if state is None or system is None:
        raise SlotMissingError(pin.name)
    if str(system[0]) != pin.system_identifier:
        raise SlotRecreatedError(pin.name, "the source is another cluster now")
    if int(system[1]) != pin.timeline:
        raise SlotRecreatedError(pin.name, f"the source has gone from timeline {pin.timeline} to {system[1]}")
    if state.plugin != "pgoutput" or state.database != system[3]:
        raise SlotRecreatedError(pin.name, f"it decodes {state.database} with {state.plugin}")
    if state.wal_status == _LOST or state.restart_lsn is None:
        raise SlotLostError(pin.name, "its log was removed: max_slot_wal_keep_size")
    if state.confirmed_flush is None or state.confirmed_flush < pin.consistent_point:
        raise SlotRecreatedError(pin.name, "it stands before the point at which this move's slot was made")
    # A slot of the same name, made later, stands past everything that this move can have applied: caught here too.
    if state.confirmed_flush > start:
        raise SlotAheadError(pin.name, state.confirmed_flush, start)


def _plugin_options(connection: Session, publication: str, options: StreamOptions) -> Sequence[tuple[str, str]]:
    chosen = [
        ("proto_version", "2" if options.streaming else "1"),
        ("publication_names", quoted(publication)),
        ("messages", "true"),
    ]
    if options.streaming:
        chosen.append(("streaming", "on"))
    if options.origin_none and connection.info.server_version >= _ORIGIN_OPTION_SINCE:
        chosen.append(("origin", "none"))
    return chosen


async def _start(connection: Session, slot: str, start: Lsn, options: Sequence[tuple[str, str]]) -> None:
    listed = ", ".join(f"{name} {literal(value).removeprefix('E')}" for name, value in options)
    command = f"START_REPLICATION SLOT {quoted(slot)} LOGICAL {format_lsn(start)} ({listed})"
    with _translated():
        result = await connection.wait(_started(connection.pgconn, command))
    if result.status != pq.ExecStatus.COPY_BOTH:
        message = result.error_message.decode(errors="replace").strip()
        if result.error_field(pq.DiagnosticField.SQLSTATE) == b"55006":
            raise StreamLostError(message)
        raise SlotLostError(slot, message)


def _started(pgconn: pq.abc.PGconn, command: str) -> PQGen[pq.abc.PGresult]:
    pgconn.send_query(command.encode())
    results: list[pq.abc.PGresult] = yield from generators.execute(pgconn)
    return results[-1]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise StreamLostError(error) from error
