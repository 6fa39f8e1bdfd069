"""Tells a database that does not answer from one that answers with an error."""

from __future__ import annotations

import socket

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_NETWORK = (
    ConnectionError,
    socket.gaierror,
    asyncpg.InternalClientError,
)
# 08: connection exception; 57P: shut down, starting up, recovering; 53300: too many connections.
_SQLSTATES = ("08", "57P", "53300")


def is_unreachable(error: BaseException) -> bool:
    """Whether another try in a moment may well succeed, because the server was not there (or its pool was exhausted)."""
    if isinstance(error, DBAPIError):
        sqlstate = str(getattr(error.orig, "sqlstate", None) or "")
        return error.connection_invalidated or not sqlstate or sqlstate.startswith(_SQLSTATES)
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate or "").startswith(_SQLSTATES)
    return isinstance(error, (PoolTimeoutError, *_NETWORK))
