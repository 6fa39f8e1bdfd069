"""A lease on a piece of work: held by a live process, free the moment that process is gone."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from strata.platform.database.administration import administrator

if TYPE_CHECKING:
    from sqlalchemy import URL


def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


@asynccontextmanager
async def lease(catalog: URL, name: str) -> AsyncIterator[bool]:
    """Try to hold `name` for the block; yields whether it is ours.

    A session-level advisory lock on a connection of its own, outside any transaction: an open one on a cluster would
    make the creation of a replication slot there wait for ever. PostgreSQL frees it when the process dies.
    """
    async with administrator(catalog) as connection:
        yield bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", _key(name)))
