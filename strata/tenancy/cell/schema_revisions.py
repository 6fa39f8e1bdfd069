"""Bring schemas of a cell to the head of their chain from recorded SQL, under the ledger `strata.revision`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from strata.platform.database.names import literal, quoted
from strata.platform.database.revisions import RevisionChain

if TYPE_CHECKING:
    import asyncpg

CONTROL_SCHEMA = "strata"

_LEDGER = """
CREATE SCHEMA IF NOT EXISTS strata;
CREATE TABLE IF NOT EXISTS strata.revision (
    schema_name name        PRIMARY KEY,
    revision    text        NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);
"""
_RECORD = (
    "INSERT INTO strata.revision (schema_name, revision) VALUES ($1, $2)"
    " ON CONFLICT (schema_name) DO UPDATE SET revision = excluded.revision, applied_at = now()"
)


class Chains(msgspec.Struct, frozen=True):
    """The chains of revisions: the catalog's, and the two that a cell is made of."""

    catalog: RevisionChain
    cell: RevisionChain
    tenant: RevisionChain

    @classmethod
    def at(cls, migrations: Path) -> Chains:
        return cls(*(RevisionChain(migrations / name) for name in ("catalog", "cell", "tenant")))

    def of(self, schema: str) -> RevisionChain:
        """Which one a schema of a cell follows."""
        return self.cell if schema == CONTROL_SCHEMA else self.tenant


class LedgerLine(msgspec.Struct, frozen=True, order=True):
    """A schema and the revision it has."""

    schema: str
    revision: str


async def upgrade_schema(
    admin: asyncpg.Connection,
    schema: str,
    chain: RevisionChain,
    install: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Apply what `schema` lacks and return the revisions applied; nothing is applied when any of it fails.

    Runs inside the caller's transaction when there is one, so that making a schema and filling it is one act.
    `install` are settings of this transaction that a first revision reads (`strata.install_<name>`).
    """
    async with admin.transaction():
        if schema == CONTROL_SCHEMA:
            await admin.execute(_LEDGER)
        current: str | None = await admin.fetchval(
            "SELECT revision FROM strata.revision WHERE schema_name = $1 FOR UPDATE", schema
        )
        missing = chain.after(current)
        if not missing:
            return ()
        for name, value in (install or {}).items():
            await admin.execute("SELECT set_config($1, $2, true)", f"strata.install_{name}", value)
        await admin.execute(
            "SELECT set_config('search_path', $1, true), set_config('lock_timeout', '4s', true)",
            f"{quoted(schema)}, pg_temp",
        )
        for revision in missing:
            await admin.execute(revision.sql)
        await admin.execute(_RECORD, schema, missing[-1].id)
    return tuple(revision.id for revision in missing)


async def ledger(admin: asyncpg.Connection) -> list[LedgerLine]:
    """Every schema of the cell with its revision, the control schema first."""
    rows = await admin.fetch(
        "SELECT schema_name, revision FROM strata.revision ORDER BY schema_name <> $1, schema_name", CONTROL_SCHEMA
    )
    return [LedgerLine(row["schema_name"], row["revision"]) for row in rows]


async def lagging(admin: asyncpg.Connection, control_head: str, tenant_head: str) -> list[LedgerLine]:
    """The schemas that are not at head, the control schema first."""
    rows = await admin.fetch(
        "SELECT schema_name, revision FROM strata.revision"
        " WHERE revision <> CASE schema_name WHEN $1 THEN $2 ELSE $3 END ORDER BY schema_name <> $1, schema_name",
        CONTROL_SCHEMA,
        control_head,
        tenant_head,
    )
    return [LedgerLine(row["schema_name"], row["revision"]) for row in rows]


async def sizes(admin: asyncpg.Connection) -> dict[str, int]:
    """Pages of each schema's tables and indexes, as of the last VACUUM: good enough to tell small from large."""
    rows = await admin.fetch(
        "SELECT l.schema_name, coalesce(sum(c.relpages), 0) AS pages FROM strata.revision l"
        " JOIN pg_namespace n ON n.nspname = l.schema_name LEFT JOIN pg_class c ON c.relnamespace = n.oid"
        " GROUP BY l.schema_name"
    )
    return {row["schema_name"]: int(row["pages"]) for row in rows}


async def revisions_of(admin: asyncpg.Connection, schemas: Iterable[str]) -> dict[str, str]:
    """What these have now; a schema that is gone is not among them."""
    rows = await admin.fetch(
        "SELECT schema_name, revision FROM strata.revision WHERE schema_name = ANY ($1::name[])", list(schemas)
    )
    return {row["schema_name"]: row["revision"] for row in rows}


def batch_script(lines: Sequence[LedgerLine], chain: RevisionChain) -> str:
    """SQL that upgrades one schema after the other, each in a transaction of its own, for one round trip.

    It ends at the first failure, which undoes that schema alone; the ledger says how far it came. Each holds its locks
    for its own DDL only: with one transaction for all, a tenant would wait for every schema after its own. The last
    commit alone waits for the disk, and takes those before it along: ledger and tables are lost together or not at all.
    """
    steps = [_step(line, chain) for line in lines]
    last = "SET LOCAL synchronous_commit = on;\nCOMMIT;"
    return "SET synchronous_commit = off;\n" + "\nCOMMIT;\n".join(steps) + f"\n{last}"


def _step(line: LedgerLine, chain: RevisionChain) -> str:
    missing = chain.after(line.revision)
    sql = "\n".join(revision.sql for revision in missing)
    # The ledger first: whoever else is upgrading the schema is waited for, and then it must not happen twice.
    return (
        f"BEGIN;\nSELECT set_config('search_path', {literal(f'{quoted(line.schema)}, pg_temp')}, true);\n"  # noqa: S608 - literal()s
        f"DO $ledger$BEGIN UPDATE strata.revision SET revision = {literal(missing[-1].id)}, applied_at = now()"
        f" WHERE schema_name = {literal(line.schema)} AND revision = {literal(line.revision)};"
        " IF NOT FOUND THEN RAISE EXCEPTION USING ERRCODE = 'serialization_failure',"
        f" MESSAGE = 'the schema has another revision by now'; END IF; END$ledger$;\n{sql}"
    )
