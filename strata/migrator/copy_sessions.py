"""Sessions that copy, compare and define: in whose name they work, what ends them, how values read in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import asyncpg
import msgspec

from strata.migrator.tables import Home
from strata.platform.database.addresses import libpq
from strata.platform.database.connecting import connect
from strata.platform.database.names import literal, quoted
from strata.platform.errors import ConfigurationError

Guard = Callable[[asyncpg.Connection], Awaitable[None]]
Throttle = Callable[[int], Awaitable[None]]
"""Awaited by worker number i before each range: returns when it may go on."""
Rest = Callable[[int, float], float]
"""How long worker number i rests after a piece of work that took so long; both in seconds."""


def restless(_worker: int, _worked_s: float) -> float:
    """For what nobody is to be spared of."""
    return 0.0


class NotBypassingError(ConfigurationError):
    code = "not-bypassing-row-security"
    title = "The administrator is held by row-level security"

    def __init__(self, cell: str) -> None:
        super().__init__(
            f"The administrator's role on cell {cell} has neither SUPERUSER nor BYPASSRLS: under row-level security a copy "
            "silently returns nothing and a foreign key is marked valid over a dangling row. ALTER ROLE … BYPASSRLS."
        )


async def _unguarded(_connection: asyncpg.Connection) -> None:
    """For a home that nobody else can be working on."""


class Warrant(msgspec.Struct, frozen=True):
    """In whose name a session works, and the check that opens each of its writing transactions.

    `hold` raises when the attempt it works for is over, and keeps that from becoming true until the transaction ends.
    """

    application_name: str = "strata-move"
    hold: Guard = _unguarded


_COMMON = {
    # Values must read the same in every session, whatever the database, role or server has as its default.
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmlbinary": "base64",
    "xmloption": "content",
    # Under a policy a query then fails where it would silently return less.
    "row_security": "off",
    "jit": "off",
    "lock_timeout": "10s",
    # Limits that somebody set for the server, the database or the role are meant for requests; no copy ends by them.
    "statement_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    # A peer that vanished without a word is noticed by its server, so that its locks and its snapshot do not stay.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
# A snapshot lives as long as its transaction, which waits while the target writes or the throttle is closed.
_SNAPSHOT = {"idle_in_transaction_session_timeout": "0"}
_BOUNDED = {"idle_in_transaction_session_timeout": "5min"}
# No range waits for the disk: each lane ends with a commit that does, and with it for the log of all its ranges.
_HURRIED = {"synchronous_commit": "off"}
# Rows arrive as they are: no trigger may change them or act on them again, and referred rows may arrive later.
_VERBATIM = {"session_replication_role": "replica"}


@asynccontextmanager
async def reading(home: Home, snapshot: str | None, warrant: Warrant) -> AsyncIterator[asyncpg.Connection]:
    """A session with one read-only transaction in `snapshot` (None: one of its own), for as long as the block lasts."""
    async with _session(home, warrant, {**_COMMON, **_SNAPSHOT}) as connection:
        await connection.transaction(isolation="repeatable_read", readonly=True).start()
        if snapshot is not None:
            await connection.execute(f"SET TRANSACTION SNAPSHOT {literal(snapshot)}")
        yield connection


@asynccontextmanager
async def writing(home: Home, warrant: Warrant, *, origin: str | None = None) -> AsyncIterator[asyncpg.Connection]:
    """A session that puts rows in, or takes them out, as they are. The log says that a copy of them came from `origin`."""
    hurried = _HURRIED if origin is not None else {}
    async with _session(home, warrant, {**_COMMON, **_BOUNDED, **_VERBATIM, **hurried}) as connection:
        if origin is not None:
            async with connection.transaction():
                await warrant.hold(connection)
                await connection.execute(
                    "SELECT CASE WHEN pg_replication_origin_oid($1) IS NULL THEN pg_replication_origin_create($1) END",
                    origin,
                )
            await connection.execute("SELECT pg_replication_origin_session_setup($1)", origin)
        yield connection


@asynccontextmanager
async def defining(home: Home, warrant: Warrant) -> AsyncIterator[asyncpg.Connection]:
    """A session for DDL in the home's schema, as the tables' owner; names without a schema mean the home's."""
    async with _session(home, warrant, {**_COMMON, **_BOUNDED}) as connection:
        yield connection


@asynccontextmanager
async def probing(home: Home, warrant: Warrant) -> AsyncIterator[asyncpg.Connection]:
    """A session that looks how the server fares, and waits for nothing that a tenant's would not wait for."""
    async with _session(home, warrant, {**_COMMON, **_BOUNDED, "statement_timeout": "30s"}) as connection:
        yield connection


@asynccontextmanager
async def _session(home: Home, warrant: Warrant, settings: Mapping[str, str]) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(libpq(home.url))
    own = {"application_name": warrant.application_name, "search_path": f"{quoted(home.schema_name)}, pg_temp"}
    try:
        await _furnish(connection, {**settings, **own})
        if not await connection.fetchval("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"):
            raise NotBypassingError(home.cell)
        yield connection
    finally:
        # Whatever went on: nothing of it is to be waited for, and what was not committed must not be.
        connection.terminate()


async def _furnish(connection: asyncpg.Connection, settings: Mapping[str, str]) -> None:
    """Those of the settings that this version has."""
    await connection.execute(
        "SELECT set_config(s.name, s.value, false) FROM unnest($1::text[], $2::text[]) AS s (name, value)"
        " JOIN pg_settings p ON lower(p.name) = lower(s.name)",
        list(settings),
        list(settings.values()),
    )
