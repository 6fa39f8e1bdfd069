"""Sequences: nobody streams them, so they are set right once, under the fence, when nobody draws from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strata.migrator.tables import Home
from strata.platform.database.names import quoted

if TYPE_CHECKING:
    import asyncpg

    from strata.migrator.tables import TenantTables


async def advance_sequences(
    source: asyncpg.Connection, target: asyncpg.Connection, tables: TenantTables, home: Home
) -> int:
    """Let the target's sequences (those of `home`) give out nothing that the source's have given out; none is lowered.

    Returns how many were moved. Descending sequences run the other way, and so does the comparison.
    """
    moved = 0
    for name in tables.sequences:
        at = f"{quoted(tables.schema)}.{quoted(name)}"
        last_value, is_called = (await source.fetch(f"SELECT last_value, is_called FROM {at}"))[0]  # noqa: S608 - name from pg_catalog
        there = f"{quoted(home.schema_name)}.{quoted(name)}"
        moved += await target.fetchval(
            f"SELECT count(setval($1::regclass, $2::bigint, true)) FROM {there} s"  # noqa: S608 - name from pg_catalog
            " JOIN pg_sequence p ON p.seqrelid = $1::regclass"
            " WHERE $3::boolean AND (NOT s.is_called AND s.last_value = $2"
            " OR s.last_value < $2 AND p.seqincrement > 0 OR s.last_value > $2 AND p.seqincrement < 0)",
            there,
            last_value,
            is_called,
        )
    return moved
