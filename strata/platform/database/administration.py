"""Connections of the administrator: DDL, provisioning, upgrades. Never used for a tenant's request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy import URL

from strata.platform.database.addresses import libpq
from strata.platform.database.connecting import connect, connection
from strata.platform.database.failures import NO_ANSWER

_KEPT_S = 30.0


@asynccontextmanager
async def administrator(url: URL, *, remembering: bool = False) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the URL's user, closed at the end of the block."""
    async with connection(libpq(url), remembering=remembering) as opened:
        yield opened


class KeptConnections:
    """One connection to each database, kept for a while after its use: opening one takes longer than many an act."""

    def __init__(self) -> None:
        self._idle: dict[URL, tuple[asyncpg.Connection, asyncio.TimerHandle]] = {}

    @asynccontextmanager
    async def connection(self, url: URL) -> AsyncIterator[asyncpg.Connection]:
        """Fit for use when the block begins; for the block's alone, and thrown away when the block fails."""
        kept = await self._taken(url) or await connect(libpq(url))
        try:
            yield kept
        except BaseException:
            kept.terminate()
            raise
        if url in self._idle or kept.is_closed() or kept.is_in_transaction():
            kept.terminate()
        else:
            closing = asyncio.get_running_loop().call_later(_KEPT_S, self._drop, url)
            self._idle[url] = (kept, closing)

    async def _taken(self, url: URL) -> asyncpg.Connection | None:
        if url not in self._idle:
            return None
        kept, closing = self._idle.pop(url)
        closing.cancel()
        try:
            await kept.execute("DISCARD ALL")
        except NO_ANSWER:
            kept.terminate()
            return None
        return kept

    def _drop(self, url: URL) -> None:
        kept, closing = self._idle.pop(url)
        closing.cancel()
        kept.terminate()

    def close(self) -> None:
        for url in list(self._idle):
            self._drop(url)
