"""Connections of the administrator: DDL, provisioning, upgrades. Never used for a tenant's request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy import URL

from strata.platform.database.addresses import libpq
from strata.platform.errors import UnavailableError

CONNECT_TIMEOUT_S = 10


class ServerUnreachableError(UnavailableError):
    code = "server-unreachable"
    title = "PostgreSQL server unreachable"

    def __init__(self, url: URL, reason: BaseException) -> None:
        where = f"{url.host or 'local socket'}:{url.port or 5432}"
        super().__init__(f"No connection to PostgreSQL at {where} ({reason}): start it, or correct its address.")


@asynccontextmanager
async def administrator(url: URL) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the URL's user, closed at the end of the block."""
    try:
        connection = await asyncpg.connect(libpq(url), timeout=CONNECT_TIMEOUT_S, statement_cache_size=0)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ServerUnreachableError(url, error) from error
    try:
        yield connection
    finally:
        # terminate, should the block have been cancelled while a statement ran
        if connection.is_in_transaction():
            connection.terminate()
        else:
            await connection.close(timeout=CONNECT_TIMEOUT_S)
