"""How the pool of a cell stands, seen from the process and from PostgreSQL."""

from __future__ import annotations

import asyncio
import gc

import msgspec

from strata.runtime import Runtime
from tests.builders.platform import admin_of


class Pool(msgspec.Struct, frozen=True):
    checked_out: int
    in_transaction: tuple[str, ...]
    """The last statement of each back end of the application that still stands in a transaction."""


async def pool_of(runtime: Runtime, cell: str) -> Pool:
    pool = (await runtime.engines.open(cell)).pool
    async with admin_of(runtime, cell) as admin:
        rows = await admin.fetch(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND usename = $1"
            " AND state <> 'idle'",
            f"{runtime.settings.role_prefix}_app",
        )
    return Pool(pool.in_use, tuple(row["query"] for row in rows))


async def settled(runtime: Runtime, cell: str) -> Pool:
    """After what was cancelled has been cleared away in the background, for which it gets two seconds."""
    gc.collect()
    found = await pool_of(runtime, cell)
    for _ in range(40):
        if not found.checked_out and not found.in_transaction:
            break
        await asyncio.sleep(0.05)
        found = await pool_of(runtime, cell)
    return found


async def kill_back_ends(runtime: Runtime, cell: str) -> int:
    """End every connection of the application to the cell, as a restart of the server would; how many."""
    async with admin_of(runtime, cell) as admin:
        count: int = await admin.fetchval(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = $1",
            f"{runtime.settings.role_prefix}_app",
        )
        return count
