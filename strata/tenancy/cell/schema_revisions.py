"""Bring one schema of a cell to the head of its chain, in one transaction, from recorded SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from strata.platform.database.names import quoted

if TYPE_CHECKING:
    import asyncpg

    from strata.platform.database.revisions import RevisionChain

CONTROL_SCHEMA = "strata"

_LEDGER = """
CREATE SCHEMA IF NOT EXISTS strata;
CREATE TABLE IF NOT EXISTS strata.revision (
    schema_name name        PRIMARY KEY,
    revision    text        NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);
"""


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
        await admin.execute(
            "INSERT INTO strata.revision (schema_name, revision) VALUES ($1, $2)"
            " ON CONFLICT (schema_name) DO UPDATE SET revision = excluded.revision, applied_at = now()",
            schema,
            missing[-1].id,
        )
    return tuple(revision.id for revision in missing)
