"""A lease on a piece of work: held by a live process, free the moment that process is gone."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy import func, select, text

from strata.platform.database.administration import administrator

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession


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


@asynccontextmanager
async def brief_lease(catalog: AsyncEngine, name: str) -> AsyncIterator[bool]:
    """The same on a connection of the pool, for work of milliseconds: a connection of its own would double those."""
    async with catalog.connect() as pooled:
        connection = await pooled.execution_options(isolation_level="AUTOCOMMIT")
        ours = bool(await connection.scalar(select(func.pg_try_advisory_lock(_key(name)))))
        try:
            yield ours
        finally:
            if ours:
                await asyncio.shield(_give_back(connection, name))


async def _give_back(connection: AsyncConnection, name: str) -> None:
    try:
        await connection.execute(select(func.pg_advisory_unlock(_key(name))))
    except BaseException:
        # It must not go back to the pool with the lock on it.
        await connection.invalidate()
        raise


async def is_leased(catalog: AsyncConnection | AsyncSession, name: str) -> bool:
    """Whether somebody holds `name` now."""
    key = _key(name) % 2**64
    held: bool = await catalog.scalar(_IS_HELD, {"high": key >> 32, "low": key % 2**32})
    return held


# How pg_locks shows an advisory lock with one key of 64 bits.
_IS_HELD = text("""
    SELECT EXISTS (
        SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
        WHERE datname = current_database() AND locktype = 'advisory' AND objsubid = 1 AND granted
          AND classid = CAST(:high AS bigint)::oid AND objid = CAST(:low AS bigint)::oid)
""")
