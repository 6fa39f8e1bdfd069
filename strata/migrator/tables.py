"""A tenant's tables as the database has them: read from pg_catalog, never from a list that somebody keeps.

Definitions are read with the home's own schema on the search_path, so that they name no schema: those of two homes
compare as text, and the source's can be run in the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from sqlalchemy import URL

from strata.platform.database.names import quoted
from strata.tenancy.model import Tier

if TYPE_CHECKING:
    import asyncpg

TENANT_COLUMN = "tenant_id"


class Home(msgspec.Struct, frozen=True):
    """Where a tenant's rows are, or will be, and the way in for the administrator."""

    tenant_id: UUID
    cell: str
    tier: Tier
    schema_name: str
    url: URL

    @property
    def exclusive(self) -> bool:
        """No other tenant's rows can be here."""
        return self.tier is not Tier.SHARED

    @property
    def tenant_literal(self) -> str:
        """The tenant as SQL, for COPY and EXPLAIN, which take no parameters. A UUID has nothing to escape."""
        return f"'{self.tenant_id}'::uuid"


class Column(msgspec.Struct, frozen=True):
    name: str
    type: str
    """With its modifier: numeric(12,2)."""
    collation: str | None
    not_null: bool
    generated: str | None
    """The expression of a generated column; the target computes it itself."""
    identity: bool
    built_in: bool
    """Of a type that PostgreSQL ships, with the same OID and binary form everywhere."""
    enum: bool

    @property
    def binary(self) -> bool:
        """Whether its binary form means the same elsewhere. That of regclass, say, is an OID of this database."""
        return self.built_in or self.enum


class ConstraintKind(StrEnum):
    PRIMARY_KEY = "p"
    UNIQUE = "u"
    EXCLUSION = "x"


class Index(msgspec.Struct, frozen=True):
    name: str
    unique: bool
    tail: str
    """What follows the table's name in CREATE INDEX: USING btree (…) …."""
    method: str
    constraint: ConstraintKind | None
    constraint_definition: str | None
    deferral: str
    """What follows USING INDEX when the constraint is added to it; empty for one that is checked at once."""
    replica_identity: bool

    def definition(self, name: str, relation: str) -> str:
        """The statement that makes it; `relation` qualified. Run again, it does nothing."""
        return f"CREATE {'UNIQUE ' if self.unique else ''}INDEX IF NOT EXISTS {quoted(name)} ON {relation} {self.tail}"


class ForeignKey(msgspec.Struct, frozen=True):
    name: str
    definition: str
    refers_to: str
    """The table's name; of one that is not among the tenant's, as PostgreSQL writes it."""
    validated: bool


class Trigger(msgspec.Struct, frozen=True):
    name: str
    definition: str
    enabled: str
    """pg_trigger.tgenabled: O origin, D disabled, R replica, A always."""


class Table(msgspec.Struct, frozen=True):
    schema: str
    name: str
    partitioned: bool
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    identity: tuple[str, ...]
    """The columns that the log names a row by; empty: none (updates and deletes would fail)."""
    indexes: tuple[Index, ...]
    foreign_keys: tuple[ForeignKey, ...]
    triggers: tuple[Trigger, ...]
    relations: tuple[str, ...]
    """Where the rows are: the table itself or its leaf partitions, qualified and quoted."""
    estimated_rows: int
    """Of all its tenants, as of the last ANALYZE."""
    size_bytes: int

    @property
    def qualified(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def copied(self) -> tuple[Column, ...]:
        """What is copied: generated columns follow from the others."""
        return tuple(column for column in self.columns if column.generated is None)

    @property
    def key(self) -> tuple[Column, ...]:
        """What tells one tenant's rows apart: the primary key without the tenant."""
        by_name = {column.name: column for column in self.columns}
        return tuple(by_name[name] for name in self.primary_key if name != TENANT_COLUMN)


class Stranger(msgspec.Struct, frozen=True):
    """Something in the tenant's schema that logical replication, or a filter by tenant, does not carry."""

    name: str
    reason: str


class TenantTables(msgspec.Struct, frozen=True, dict=True):
    schema: str
    tables: tuple[Table, ...]
    """Referred ones first; within a cycle by name."""
    sequences: tuple[str, ...]
    strangers: tuple[Stranger, ...]
    encoding: str
    version_num: int

    @cached_property
    def by_name(self) -> Mapping[str, Table]:
        return {table.name: table for table in self.tables}


_TABLES = """
SELECT c.oid, c.relname, c.relkind = 'p' AS partitioned, c.relreplident::text AS identity,
    leaves.names AS relations, leaves.rows, leaves.bytes
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $2 AND NOT a.attisdropped
CROSS JOIN LATERAL (
    SELECT array_agg(format('%I.%I', n.nspname, l.relname) ORDER BY n.nspname, l.relname) AS names,
        coalesce(sum(greatest(l.reltuples, 0)), 0)::bigint AS rows,
        coalesce(sum(pg_table_size(l.oid)), 0)::bigint AS bytes
    FROM pg_class l JOIN pg_namespace n ON n.oid = l.relnamespace
    WHERE l.oid = c.oid AND c.relkind = 'r'
        OR c.relkind = 'p' AND l.oid IN (SELECT t.relid FROM pg_partition_tree(c.oid) t WHERE t.isleaf)
) leaves
WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
"""

# Left out of binary: names of objects (reg…), whose binary form is an OID of this database. A domain's form is its base
# type's, but the text form is always right and domains are rare.
_COLUMNS = """
SELECT a.attrelid, a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull,
    CASE WHEN a.attcollation <> 0 THEN a.attcollation::regcollation::text END AS collation,
    CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END AS generated,
    a.attidentity <> '' AS identity, t.typtype = 'e' AS enum,
    t.oid < 16384 AND t.typtype IN ('b', 'r', 'm') AND t.typsend <> 0 AND t.typreceive <> 0
        AND t.typname !~ '^_?reg(proc|procedure|oper|operator|class|type|role|namespace|config|dictionary|collation|database)$'
        AS built_in
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attname
"""

_INDEXES = """
SELECT i.indrelid, c.relname, m.amname AS method, i.indisreplident, i.indisprimary, i.indisunique, k.contype::text AS constraint,
    -- The table's name before it may have ON ONLY, and a schema, in front.
    regexp_replace(pg_get_indexdef(i.indexrelid, 0, true),
        '^CREATE (?:UNIQUE )?INDEX (?:"(?:[^"]|"")*"|[^ "]+) ON (?:ONLY )?(?:"(?:[^"]|"")*"|[^ "]+) ', '') AS tail,
    pg_get_constraintdef(k.oid, true) AS constraint_definition,
    CASE WHEN k.condeferrable THEN ' DEFERRABLE' || CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END
        ELSE '' END AS deferral,
    ARRAY(SELECT a.attname FROM unnest(i.indkey[0 : i.indnkeyatts - 1]) WITH ORDINALITY u (number, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.number ORDER BY u.place) AS columns
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am m ON m.oid = c.relam
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
WHERE i.indrelid = ANY ($1::oid[])
ORDER BY c.relname
"""

_FOREIGN_KEYS = """
SELECT k.conrelid, k.conname, k.convalidated, k.confrelid::regclass::text AS refers_to, k.confrelid,
    pg_get_constraintdef(k.oid, true) AS definition
FROM pg_constraint k
WHERE k.conrelid = ANY ($1::oid[]) AND k.contype = 'f' AND k.conparentid = 0
ORDER BY k.conname
"""

_TRIGGERS = """
SELECT t.tgrelid, t.tgname, t.tgenabled::text AS enabled, pg_get_triggerdef(t.oid, true) AS definition
FROM pg_trigger t
WHERE t.tgrelid = ANY ($1::oid[]) AND NOT t.tgisinternal
ORDER BY t.tgname
"""

_STRANGERS = """
SELECT c.relname, CASE
    WHEN c.relkind = 'f' THEN 'is a foreign table'
    WHEN c.relkind = 'm' THEN 'is a materialised view'
    WHEN c.relpersistence = 'u' THEN 'is unlogged: its changes are not in the log'
    WHEN EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid) AND NOT c.relispartition THEN 'inherits from another table'
    WHEN c.relispartition AND EXISTS (SELECT FROM pg_partition_ancestors(c.oid) p JOIN pg_class r ON r.oid = p.relid
        WHERE NOT r.relispartition AND r.relnamespace <> c.relnamespace) THEN 'is a partition of a table in another schema'
    ELSE 'has no tenant_id'
END AS reason
FROM pg_class c
WHERE c.relnamespace = $1::regnamespace AND (
    c.relkind IN ('f', 'm')
    OR c.relkind IN ('r', 'p') AND (
        c.relpersistence = 'u'
        OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid) AND NOT c.relispartition
        OR c.relispartition AND EXISTS (SELECT FROM pg_partition_ancestors(c.oid) p JOIN pg_class r ON r.oid = p.relid
            WHERE NOT r.relispartition AND r.relnamespace <> c.relnamespace)
        OR NOT c.relispartition AND NOT EXISTS (
            SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = $2 AND NOT a.attisdropped)))
ORDER BY c.relname
"""

_SEQUENCES = "SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'S' ORDER BY relname"

_SERVER = (
    "SELECT current_setting('server_encoding') AS encoding, current_setting('server_version_num')::int AS version_num"
)


async def describe(connection: asyncpg.Connection, schema: str) -> TenantTables:
    """The tables of `schema` that hold tenants' rows; in the caller's transaction (and snapshot) if there is one."""
    async with connection.transaction():
        before = await connection.fetchval("SELECT current_setting('search_path')")
        await connection.execute("SELECT set_config('search_path', $1, true)", f"{quoted(schema)}, pg_temp")
        described = await _describe(connection, schema)
        await connection.execute("SELECT set_config('search_path', $1, true)", before)
    return described


async def _describe(connection: asyncpg.Connection, schema: str) -> TenantTables:
    rows = {row["oid"]: row for row in await connection.fetch(_TABLES, quoted(schema), TENANT_COLUMN)}
    oids = list(rows)
    columns, indexes, foreign_keys, triggers = [
        _grouped(await connection.fetch(query, oids)) for query in (_COLUMNS, _INDEXES, _FOREIGN_KEYS, _TRIGGERS)
    ]
    tables = {
        row["relname"]: Table(
            schema=schema,
            name=row["relname"],
            partitioned=row["partitioned"],
            columns=tuple(_column(each) for each in columns.get(oid, ())),
            primary_key=next((tuple(each["columns"]) for each in indexes.get(oid, ()) if each["indisprimary"]), ()),
            identity=_identity(row["identity"], columns.get(oid, ()), indexes.get(oid, ())),
            indexes=tuple(_index(each) for each in indexes.get(oid, ())),
            foreign_keys=tuple(
                ForeignKey(
                    each["conname"],
                    each["definition"],
                    rows[each["confrelid"]]["relname"] if each["confrelid"] in rows else each["refers_to"],
                    each["convalidated"],
                )
                for each in foreign_keys.get(oid, ())
            ),
            triggers=tuple(
                Trigger(each["tgname"], each["definition"], each["enabled"]) for each in triggers.get(oid, ())
            ),
            relations=tuple(row["relations"] or ()),
            estimated_rows=row["rows"],
            size_bytes=row["bytes"],
        )
        for oid, row in rows.items()
    }
    references = {
        row["relname"]: {
            rows[each["confrelid"]]["relname"] for each in foreign_keys.get(oid, ()) if each["confrelid"] in rows
        }
        for oid, row in rows.items()
    }
    server = await connection.fetchrow(_SERVER)
    assert server is not None  # noqa: S101 - a query without FROM has one row
    return TenantTables(
        schema=schema,
        tables=tuple(tables[name] for name in copy_order(references)),
        sequences=tuple(row[0] for row in await connection.fetch(_SEQUENCES, quoted(schema))),
        strangers=tuple(
            Stranger(row["relname"], row["reason"])
            for row in await connection.fetch(_STRANGERS, quoted(schema), TENANT_COLUMN)
        ),
        encoding=server["encoding"],
        version_num=server["version_num"],
    )


def copy_order(references: Mapping[str, AbstractSet[str]]) -> list[str]:
    """Names so that each comes after those it refers to; a cycle is opened at its first name."""
    left = sorted(references)
    ordered: list[str] = []
    while left:
        ready = next((name for name in left if references[name] <= {*ordered, name}), left[0])
        ordered.append(ready)
        left.remove(ready)
    return ordered


def _grouped(rows: list[asyncpg.Record]) -> dict[int, list[asyncpg.Record]]:
    """By the table's OID, which is the first column."""
    grouped: dict[int, list[asyncpg.Record]] = {}
    for row in rows:
        grouped.setdefault(row[0], []).append(row)
    return grouped


def _column(row: asyncpg.Record) -> Column:
    return Column(
        name=row["attname"],
        type=row["type"],
        collation=row["collation"],
        not_null=row["attnotnull"],
        generated=row["generated"],
        identity=row["identity"],
        built_in=row["built_in"],
        enum=row["enum"],
    )


def _index(row: asyncpg.Record) -> Index:
    return Index(
        name=row["relname"],
        unique=row["indisunique"],
        tail=row["tail"],
        method=row["method"],
        constraint=ConstraintKind(row["constraint"]) if row["constraint"] else None,
        constraint_definition=row["constraint_definition"],
        deferral=row["deferral"],
        replica_identity=row["indisreplident"],
    )


def _identity(
    setting: str, columns: list[asyncpg.Record] | tuple[()], indexes: list[asyncpg.Record] | tuple[()]
) -> tuple[str, ...]:
    match setting:
        case "f":
            return tuple(row["attname"] for row in columns)
        case "d":
            return next((tuple(row["columns"]) for row in indexes if row["indisprimary"]), ())
        case "i":
            return next((tuple(row["columns"]) for row in indexes if row["indisreplident"]), ())
        case _:
            return ()
