"""The tables in which tenants' rows live, as the database has them: nobody's list can be out of date."""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

import msgspec

from strata.platform.database.names import quoted

if TYPE_CHECKING:
    import asyncpg


class TenantTable(msgspec.Struct, frozen=True):
    schema: str
    name: str

    @property
    def qualified(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"


_TABLES = """
SELECT c.oid, c.relname
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
"""

_REFERENCES = """
SELECT DISTINCT conrelid, confrelid FROM pg_constraint
WHERE contype = 'f' AND conparentid = 0 AND connamespace = $1::regnamespace AND conrelid <> confrelid
"""


async def tenant_tables(connection: asyncpg.Connection, schema: str) -> list[TenantTable]:
    """Tables of `schema` that have a tenant_id, those that refer to others first: the order to delete in."""
    names = {row["oid"]: row["relname"] for row in await connection.fetch(_TABLES, quoted(schema))}
    graph: TopologicalSorter[int] = TopologicalSorter({oid: set() for oid in names})
    for row in await connection.fetch(_REFERENCES, quoted(schema)):
        if row["conrelid"] in names and row["confrelid"] in names:
            graph.add(row["confrelid"], row["conrelid"])
    return [TenantTable(schema, names[oid]) for oid in graph.static_order()]
