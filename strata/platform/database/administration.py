"""Connections of the administrator: DDL, provisioning, upgrades. Never used for a tenant's request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy import URL

from strata.platform.database.addresses import libpq
from strata.platform.errors import UnavailableError

CONNECT_TIMEOUT_S = 10
_KEPT_S = 30.0


class ServerUnreachableError(UnavailableError):
    code = "server-unreachable"
    title = "PostgreSQL server unreachable"

    def __init__(self, url: URL, reason: BaseException) -> None:
        where = f"{url.host or 'local socket'}:{url.port or 5432}"
        super().__init__(f"No connection to PostgreSQL at {where} ({reason}): start it, or correct its address.")


async def _connect(url: URL) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(libpq(url), timeout=CONNECT_TIMEOUT_S, statement_cache_size=0)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ServerUnreachableError(url, error) from error


@asynccontextmanager
async def administrator(url: URL) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the URL's user, closed at the end of the block."""
    connection = await _connect(url)
    try:
        yield connection
    finally:
        # terminate, should the block have been cancelled while a statement ran
        if connection.is_in_transaction():
            connection.terminate()
        else:
            await connection.close(timeout=CONNECT_TIMEOUT_S)


class KeptConnections:
    """One connection to each database, kept for a while after its use: opening one takes longer than many an act."""

    def __init__(self) -> None:
        self._idle: dict[URL, tuple[asyncpg.Connection, asyncio.TimerHandle]] = {}

    @asynccontextmanager
    async def connection(self, url: URL) -> AsyncIterator[asyncpg.Connection]:
        """Fit for use when the block begins; for the block's alone, and thrown away when the block fails."""
        connection = await self._taken(url) or await _connect(url)
        try:
            yield connection
        except BaseException:
            connection.terminate()
            raise
        if url in self._idle or connection.is_closed() or connection.is_in_transaction():
            connection.terminate()
        else:
            closing = asyncio.get_running_loop().call_later(_KEPT_S, self._drop, url)
            self._idle[url] = (connection, closing)

    async def _taken(self, url: URL) -> asyncpg.Connection | None:
        if url not in self._idle:
            return None
        connection, closing = self._idle.pop(url)
        closing.cancel()
        try:
            await connection.execute("DISCARD ALL")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()
            return None
        return connection

    def _drop(self, url: URL) -> None:
        connection, closing = self._idle.pop(url)
        closing.cancel()
        connection.terminate()

    def close(self) -> None:
        for url in list(self._idle):
            self._drop(url)
