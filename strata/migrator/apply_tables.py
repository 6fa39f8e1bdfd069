"""What the applier must know of a target table, from the target's own catalog, fitted to what the source sends."""

from __future__ import annotations

from uuid import UUID

import msgspec

from strata.migrator.coalescing import TableKey, key_columns
from strata.migrator.pgoutput import Relation
from strata.migrator.replication_errors import SchemaChangedError
from strata.migrator.sessions import Session
from strata.platform.database.names import quoted

TENANT_COLUMN = "tenant_id"


class Route(msgspec.Struct, frozen=True):
    """Rows of tables in one schema go to the tables of the same names in another; all of them are one tenant's."""

    source_schema: str
    target_schema: str
    tenant_id: UUID


class TargetColumn(msgspec.Struct, frozen=True):
    name: str
    type: str
    """Ready for a cast: with its schema, quoted, without a length (which would cut silently)."""
    always_identity: bool


class TargetTable(msgspec.Struct, frozen=True):
    schema: str
    name: str
    columns: tuple[TargetColumn, ...]
    """In the order in which the source sends them."""
    key: TableKey
    tenant_position: int

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def qualified(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def rewrites_rows(self) -> bool:
        """UPDATE refuses to set an identity column that is GENERATED ALWAYS; such rows are deleted and inserted."""
        return any(column.always_identity for column in self.columns)


# Typmod -1 and not NULL: format_type() then says bpchar for a character without a length, where character means one.
_COLUMNS = """
    SELECT a.attname, pg_catalog.format_type(a.atttypid, -1), a.attidentity = 'a', a.attgenerated <> ''
      FROM pg_catalog.pg_attribute a
     WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
     ORDER BY a.attnum
"""
_TABLE = """
    SELECT c.oid,
           (SELECT array_agg(a.attname::text ORDER BY k.place)
              FROM pg_catalog.pg_index i
             CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place)
              JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
             WHERE i.indrelid = c.oid AND i.indisprimary),
           (SELECT array_agg(t.tgname::text) FROM pg_catalog.pg_trigger t
             WHERE t.tgrelid = c.oid AND t.tgenabled IN ('R', 'A') AND NOT t.tgisinternal)
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')
"""


async def target_table(connection: Session, relation: Relation, route: Route) -> TargetTable:
    """Fit the source's relation to the table of that name in the target's schema, or say what differs."""
    label = f"{route.target_schema}.{relation.table}"
    if relation.schema != route.source_schema:
        raise SchemaChangedError(
            f"{relation.schema}.{relation.table}", f"is published, but the move is of {route.source_schema}"
        )
    found = await (await connection.execute(_TABLE, (route.target_schema, relation.table))).fetchone()
    if found is None:
        raise SchemaChangedError(label, "is not on the target")
    oid, primary_key, triggers = found
    if triggers:
        # They fire in spite of session_replication_role and would write what the source has already written.
        raise SchemaChangedError(label, f"has triggers that fire on replicated rows: {', '.join(triggers)}")
    settable: dict[str, TargetColumn] = {}
    for name, type_name, always_identity, generated in await (await connection.execute(_COLUMNS, (oid,))).fetchall():
        if not generated:
            settable[name] = TargetColumn(name, type_name, always_identity)
    sent = [column.name for column in relation.columns]
    if missing := [name for name in sent if name not in settable]:
        raise SchemaChangedError(label, f"lacks columns that the source has: {', '.join(missing)}")
    if unsent := [name for name in settable if name not in sent]:
        raise SchemaChangedError(label, f"has columns that the source does not send: {', '.join(unsent)}")
    if TENANT_COLUMN not in sent:
        raise SchemaChangedError(label, f"has no column {TENANT_COLUMN}, so whose rows these are cannot be checked")
    return TargetTable(
        schema=route.target_schema,
        name=relation.table,
        columns=tuple(settable[name] for name in sent),
        key=key_columns(relation, primary_key or (), label),
        tenant_position=sent.index(TENANT_COLUMN),
    )
