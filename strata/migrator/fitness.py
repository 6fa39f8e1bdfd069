"""What stands against moving a tenant from one home to another, as far as their tables can tell (protocol, step 1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from strata.migrator.tables import TENANT_COLUMN, Home, Index, Table, TenantTables
from strata.platform.database.names import quoted

if TYPE_CHECKING:
    import asyncpg


class ObjectionCode(StrEnum):
    STRANGER = "stranger"
    NO_PRIMARY_KEY = "no-primary-key"
    REPLICA_IDENTITY = "replica-identity"
    TENANT_COLUMN_TYPE = "tenant-column-type"
    REFERS_ELSEWHERE = "refers-elsewhere"
    SUBSCRIBED = "subscribed"
    RIGHTS = "rights"
    ENCODING = "encoding"
    REVISION = "revision"
    TABLES_DIFFER = "tables-differ"
    TRIGGER = "trigger"
    NOT_EMPTY = "not-empty"


class Objection(msgspec.Struct, frozen=True):
    code: ObjectionCode
    table: str | None
    problem: str
    """A sentence."""


_SUBSCRIBED = """
SELECT DISTINCT s.srrelid::regclass::text AS name
FROM pg_subscription_rel s
JOIN unnest($1::text[]) AS t (name) ON s.srrelid IN (t.name::regclass, (SELECT r.relid FROM pg_partition_root(t.name::regclass) r (relid)))
ORDER BY 1
"""

_RIGHTS = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"


async def objections_to_source(connection: asyncpg.Connection, tables: TenantTables) -> list[Objection]:
    """What the source alone has against it, before there is a target."""
    found = [
        Objection(ObjectionCode.STRANGER, each.name, f"{each.name} {each.reason}: a move would leave it behind.")
        for each in tables.strangers
    ]
    for table in tables.tables:
        found += _objections_to_table(table, tables)
    relations = [relation for table in tables.tables for relation in table.relations]
    found += [
        Objection(
            ObjectionCode.SUBSCRIBED,
            row["name"],
            f"{row['name']} is fed by a subscription, which a move does not take along.",
        )
        for row in await connection.fetch(_SUBSCRIBED, relations)
    ]
    return [*found, *await _objections_to_role(connection, "source")]


async def objections_to_target(
    connection: asyncpg.Connection, home: Home, tables: TenantTables, source: TenantTables
) -> list[Objection]:
    """What the target has against it: `tables` are its own. Indexes may be missing where the home is exclusive."""
    found = await _objections_to_role(connection, "target")
    if tables.encoding != source.encoding:
        found.append(
            Objection(
                ObjectionCode.ENCODING,
                None,
                f"The source is encoded in {source.encoding}, the target in {tables.encoding}.",
            )
        )
    found += [
        Objection(ObjectionCode.TABLES_DIFFER, name, problem)
        for name, problem in differences(source, tables, structure=not home.exclusive)
    ]
    for table in tables.tables:
        found += [
            Objection(
                ObjectionCode.TRIGGER,
                table.name,
                f"Trigger {trigger.name} on {table.name} fires on replicated rows too: every copied row would run it.",
            )
            for trigger in table.triggers
            if trigger.enabled in {"A", "R"}
        ]
        if await has_rows(connection, home, table):
            found.append(
                Objection(
                    ObjectionCode.NOT_EMPTY, table.name, f"{table.name} has rows of the tenant in the target already."
                )
            )
    return found


async def objections_to_revisions(
    source: asyncpg.Connection, source_schema: str, target: asyncpg.Connection, target_schema: str
) -> list[Objection]:
    """Whether both cells' ledgers say the same of the two schemas."""
    query = "SELECT revision FROM strata.revision WHERE schema_name = $1"
    here, there = await source.fetchval(query, source_schema), await target.fetchval(query, target_schema)
    if here == there:
        return []
    problem = f"The source's schema is at revision {here}, the target's at {there}: run strata db upgrade first."
    return [Objection(ObjectionCode.REVISION, None, problem)]


async def has_rows(connection: asyncpg.Connection, home: Home, table: Table) -> bool:
    found: bool = await connection.fetchval(
        f"SELECT EXISTS (SELECT FROM {table.qualified} WHERE {quoted(TENANT_COLUMN)} = $1)",  # noqa: S608 - names from pg_catalog
        home.tenant_id,
    )
    return found


def differences(source: TenantTables, target: TenantTables, *, structure: bool = True) -> Iterator[tuple[str, str]]:
    """Table and sentence for each way in which the two schemas are not alike. `structure`: indexes, keys, triggers too."""
    for name in sorted(source.by_name.keys() | target.by_name.keys()):
        here, there = source.by_name.get(name), target.by_name.get(name)
        if here is None or there is None:
            yield name, f"{name} is missing in the {'source' if here is None else 'target'}."
            continue
        for what in _unlike({each.name: each for each in here.columns}, {each.name: each for each in there.columns}):
            yield name, f"Column {what} of {name} is not the same on both sides."
        if structure:
            yield from (
                (name, f"{what} of {name} is not the same on both sides.") for what in _unlike_structure(here, there)
            )


def _unlike_structure(here: Table, there: Table) -> Iterator[str]:
    if here.primary_key != there.primary_key:
        yield "The primary key"
    yield from (f"Index {name}" for name in _unlike(_compared(here.indexes), _compared(there.indexes)))
    for kind, ours, theirs in (
        ("Foreign key", here.foreign_keys, there.foreign_keys),
        ("Trigger", here.triggers, there.triggers),
    ):
        yield from (f"{kind} {name}" for name in _unlike({e.name: e for e in ours}, {e.name: e for e in theirs}))


def _compared(indexes: Iterable[Index]) -> dict[str, object]:
    return {each.name: (each.unique, each.tail, each.constraint_definition) for each in indexes}


def _unlike(here: Mapping[str, object], there: Mapping[str, object]) -> list[str]:
    return [name for name in {**here, **there} if here.get(name) != there.get(name)]


def _objections_to_table(table: Table, tables: TenantTables) -> Iterator[Objection]:
    tenant = next(column for column in table.columns if column.name == TENANT_COLUMN)
    if tenant.type != "uuid":
        problem = f"{table.name}.{TENANT_COLUMN} is {tenant.type}, not uuid."
        yield Objection(ObjectionCode.TENANT_COLUMN_TYPE, table.name, problem)
    if TENANT_COLUMN not in table.primary_key:
        problem = f"{table.name} has no primary key with {TENANT_COLUMN} in it, which ranges and changes are found by."
        yield Objection(ObjectionCode.NO_PRIMARY_KEY, table.name, problem)
    if TENANT_COLUMN not in table.identity:
        # PostgreSQL would accept the publication, and then refuse every UPDATE and DELETE of every tenant.
        problem = f"The replica identity of {table.name} lacks {TENANT_COLUMN}, which its publication filters by."
        yield Objection(ObjectionCode.REPLICA_IDENTITY, table.name, problem)
    for key in table.foreign_keys:
        if key.refers_to not in tables.by_name:
            problem = f"Foreign key {key.name} of {table.name} refers to {key.refers_to}, which does not move along."
            yield Objection(ObjectionCode.REFERS_ELSEWHERE, table.name, problem)


async def _objections_to_role(connection: asyncpg.Connection, side: str) -> list[Objection]:
    if await connection.fetchval(_RIGHTS):
        return []
    problem = f"The administrator's role on the {side} has neither SUPERUSER nor BYPASSRLS, and would not see all rows."
    return [Objection(ObjectionCode.RIGHTS, None, problem)]
