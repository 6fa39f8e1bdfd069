"""Administrators' sessions of the migrator's own, on psycopg: it alone speaks the replication protocol.

A DSN that carries an application_name keeps it: by that name a worker that takes a move over ends those of before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import UUID

import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from strata.migrator.replication_errors import StreamLostError, TargetLostError

APPLICATION_NAME = "strata-move"
Session = AsyncConnection[TupleRow]


class Reign(msgspec.Struct, frozen=True):
    """Of a worker over a move, as a cell knows it."""

    tenant_id: UUID
    attempt: int


@asynccontextmanager
async def held(connection: Session, reign: Reign | None) -> AsyncIterator[None]:
    """A transaction that no later attempt overtakes: it ends with SM007 when the reign is over. None: nobody else is there."""
    async with connection.transaction():
        if reign is not None:
            await connection.execute("SELECT strata.hold_attempt(%s, %s)", (reign.tenant_id, reign.attempt))
        yield


def source_session(dsn: str) -> AbstractAsyncContextManager[Session]:
    """Raises StreamLostError when it cannot be had."""
    return _session(dsn, StreamLostError)


def target_session(dsn: str) -> AbstractAsyncContextManager[Session]:
    """Raises TargetLostError when it cannot be had."""
    return _session(dsn, TargetLostError)


def walsender(dsn: str) -> AbstractAsyncContextManager[Session]:
    """A session that speaks the replication commands, and plain SQL without parameters."""
    return _session(dsn, StreamLostError, replication="database")


@asynccontextmanager
async def _session(
    dsn: str, lost: type[StreamLostError | TargetLostError], **parameters: str
) -> AsyncIterator[Session]:
    try:
        connection = await _connect(dsn, **parameters)
    except psycopg.OperationalError as error:
        raise lost(error) from error
    try:
        yield connection
    finally:
        # Never `async with connection`: its end commits what is open, which may be half a source transaction.
        await connection.close()


async def _connect(dsn: str, **parameters: str) -> Session:
    if "application_name" not in conninfo_to_dict(dsn):
        parameters["application_name"] = APPLICATION_NAME
    return await AsyncConnection.connect(make_conninfo(dsn, **parameters), autocommit=True, prepare_threshold=None)
