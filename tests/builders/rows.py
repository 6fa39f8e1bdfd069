"""Rows for every tenant table that pg_catalog knows, whatever it is: a new table is covered the day it is made."""

from __future__ import annotations

import json
import re
import secrets
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import msgspec

from strata.platform.database.names import literal, quoted

if TYPE_CHECKING:
    import asyncpg

_TABLES = """
SELECT c.oid, c.relname, c.relkind = 'p' AS partitioned
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
"""

_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, NULL) AS type, a.attnotnull,
    (SELECT string_agg(pg_get_constraintdef(k.oid), ' ') FROM pg_constraint k
      WHERE k.conrelid = a.attrelid AND k.contype = 'c' AND k.conkey = ARRAY[a.attnum]) AS checks
FROM pg_attribute a
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attidentity = ''
"""

_REFERENCES = """
SELECT k.confrelid, array_agg(a.attname ORDER BY u.n) AS columns, array_agg(f.attname ORDER BY u.n) AS referred
FROM pg_constraint k
CROSS JOIN unnest(k.conkey, k.confkey) WITH ORDINALITY AS u (own, other, n)
JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.own
JOIN pg_attribute f ON f.attrelid = k.confrelid AND f.attnum = u.other
WHERE k.conrelid = $1 AND k.contype = 'f' AND k.conparentid = 0
GROUP BY k.oid, k.confrelid
"""

_PARTITIONS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1 ORDER BY 1"


class Column(msgspec.Struct, frozen=True):
    name: str
    type: str
    required: bool
    choices: tuple[str, ...]
    """What a CHECK allows, where it lists it."""


class Reference(msgspec.Struct, frozen=True):
    table: str
    columns: dict[str, str]
    """Own column to referred column, without tenant_id."""


class Table(msgspec.Struct, frozen=True):
    schema: str
    name: str
    columns: tuple[Column, ...]
    references: tuple[Reference, ...]
    partitions: tuple[str, ...]

    @property
    def qualified(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"


Row = dict[str, Any]


async def tables_of(admin: asyncpg.Connection, schema: str) -> list[Table]:
    """Every table of the schema with a tenant_id, referred ones first."""
    found = {row["oid"]: row["relname"] for row in await admin.fetch(_TABLES, quoted(schema))}
    graph: TopologicalSorter[int] = TopologicalSorter({oid: set() for oid in found})
    tables = {}
    for oid, name in found.items():
        references = []
        for row in await admin.fetch(_REFERENCES, oid):
            pairs = dict(zip(row["columns"], row["referred"], strict=True))
            assert pairs.pop("tenant_id") == "tenant_id", f"{name}: a foreign key that does not carry the tenant"
            references.append(Reference(found[row["confrelid"]], pairs))
            if row["confrelid"] != oid:
                graph.add(oid, row["confrelid"])
        columns = tuple(_column(row) for row in await admin.fetch(_COLUMNS, oid))
        partitions = tuple(row[0] for row in await admin.fetch(_PARTITIONS, oid))
        tables[oid] = Table(schema, name, columns, tuple(references), partitions)
    return [tables[oid] for oid in graph.static_order()]


def _column(row: asyncpg.Record) -> Column:
    listed = re.search(r"ARRAY\[(.*?)\]", row["checks"] or "")
    choices = tuple(re.findall(r"'([^']*)'", listed.group(1))) if listed else ()
    return Column(row["attname"], row["type"], row["attnotnull"], choices)


def sample(table: Table, tenant_id: UUID, parents: dict[str, Row]) -> Row:
    """A row that fits; `parents` are the tenant's rows by table. Nullable columns stay out."""
    row: Row = {"tenant_id": str(tenant_id), "id": str(uuid4())}
    required = {column.name for column in table.columns if column.required}
    for reference in table.references:
        if reference.table in parents and required.issuperset(reference.columns):
            row |= {own: parents[reference.table][other] for own, other in reference.columns.items()}
    for column in table.columns:
        if column.name not in row and column.required:
            row[column.name] = column.choices[0] if column.choices else _VALUES[column.type]()
    return row


_VALUES: dict[str, Any] = {
    "text": lambda: f"x{secrets.token_hex(6)}",
    "uuid": lambda: str(uuid4()),
    "bigint": lambda: secrets.randbelow(30_000) + 1,
    "integer": lambda: secrets.randbelow(30_000) + 1,
    "smallint": lambda: secrets.randbelow(30_000) + 1,
    "numeric": lambda: "1",
    "boolean": lambda: False,
    "jsonb": dict,
    "bytea": lambda: "\\x00ff",
    "date": lambda: "2026-01-01",
    "timestamp with time zone": lambda: "2026-01-01T00:00:00Z",
}


def insertion(table: Table, row: Row, relation: str | None = None) -> str:
    """The statement that inserts it, all in text, so that it goes through any protocol."""
    columns = ", ".join(quoted(name) for name in row)
    return (
        f"INSERT INTO {relation or table.qualified} ({columns}) SELECT {columns}"
        f" FROM jsonb_populate_record(NULL::{table.qualified}, {literal(json.dumps(row))}::jsonb)"
    )


async def fill(admin: asyncpg.Connection, tables: list[Table], tenant_id: UUID) -> dict[str, Row]:
    """One row of the tenant's in each table, by the administrator."""
    rows: dict[str, Row] = {}
    for table in tables:
        row = sample(table, tenant_id, rows)
        await admin.execute(insertion(table, row))
        rows[table.name] = row
    return rows


async def fingerprint(admin: asyncpg.Connection, schema: str, tenant_id: UUID) -> dict[str, tuple[int, str]]:
    """Count and MD5 of the tenant's rows by table, read by the administrator past every policy."""
    names = [row["relname"] for row in await admin.fetch(_TABLES, quoted(schema))]
    each = (
        f"SELECT '{name}', count(*), coalesce(md5(string_agg(t::text, E'\\n' ORDER BY t::text)), '')"
        f" FROM {quoted(schema)}.{quoted(name)} t WHERE tenant_id = $1"
        for name in names
    )
    return {name: (count, digest) for name, count, digest in await admin.fetch(" UNION ALL ".join(each), tenant_id)}
