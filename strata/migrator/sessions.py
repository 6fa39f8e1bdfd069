"""Administrators' sessions of the migrator's own, on psycopg: it alone speaks the replication protocol.

A DSN that carries an application_name keeps it: by that name a worker that takes a move over ends those of before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from strata.migrator.replication_errors import StreamLostError, TargetLostError

APPLICATION_NAME = "strata-move"
Session = AsyncConnection[TupleRow]


@asynccontextmanager
async def source_session(dsn: str) -> AsyncIterator[Session]:
    try:
        connection = await _connect(dsn)
    except psycopg.OperationalError as error:
        raise StreamLostError(error) from error
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def target_session(dsn: str) -> AsyncIterator[Session]:
    try:
        connection = await _connect(dsn)
    except psycopg.OperationalError as error:
        raise TargetLostError(error) from error
    try:
        yield connection
    finally:
        # Never `async with connection`: its end commits what is open, which may be half a source transaction.
        await connection.close()


@asynccontextmanager
async def walsender(dsn: str) -> AsyncIterator[Session]:
    """A session that speaks the replication commands, and plain SQL without parameters."""
    try:
        connection = await _connect(dsn, replication="database")
    except psycopg.OperationalError as error:
        raise StreamLostError(error) from error
    try:
        yield connection
    finally:
        await connection.close()


async def _connect(dsn: str, **parameters: str) -> Session:
    if "application_name" not in conninfo_to_dict(dsn):
        parameters["application_name"] = APPLICATION_NAME
    return await AsyncConnection.connect(make_conninfo(dsn, **parameters), autocommit=True, prepare_threshold=None)
