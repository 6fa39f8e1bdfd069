"""Leases that end with the process: advisory locks of one connection to the catalog, for many names."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from strata.platform.database.administration import administrator
from strata.platform.database.failures import NO_ANSWER
from strata.platform.errors import UnavailableError

if TYPE_CHECKING:
    from sqlalchemy import URL

_ANSWER_TIMEOUT_S = 5.0
_CLASS = 7530
"""Of two integers, so that no other lock of the catalog is met."""


class LeaseLostError(UnavailableError):
    code = "lease-lost"
    title = "Lease lost"

    def __init__(self) -> None:
        super().__init__("The connection that holds this process's leases is gone; it takes them again.")


class Leases:
    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.held: set[str] = set()
        self.lost = asyncio.Event()
        connection.add_termination_listener(lambda _: self.lost.set())

    async def try_take(self, names: Collection[str]) -> set[str]:
        """Those of `names` that nobody else holds; from now on this process does."""
        wanted = {_key(name): name for name in names if name not in self.held}
        if not wanted:
            await self._ask("SELECT 1")
            return set()
        rows = await self._ask(
            "SELECT key FROM unnest($1::int[]) AS key WHERE pg_try_advisory_lock($2, key)", list(wanted), _CLASS
        )
        taken = {wanted[row["key"]] for row in rows}
        self.held |= taken
        return taken

    async def give_back(self, name: str) -> None:
        self.held.discard(name)
        await self._ask("SELECT pg_advisory_unlock($1, $2)", _CLASS, _key(name))

    async def _ask(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                return list(await self._connection.fetch(query, *arguments))
        except NO_ANSWER as error:
            # Whether it still has them is not known: as good as lost.
            self.lost.set()
            self._connection.terminate()
            raise LeaseLostError from error


@asynccontextmanager
async def leases(catalog: URL) -> AsyncIterator[Leases]:
    async with administrator(catalog) as connection:
        yield Leases(connection)


def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big", signed=True)
