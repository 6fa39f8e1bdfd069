"""Publications: which tables and whose rows a slot sends. Made before the slot, dropped after it, looked at at every start.

Tables are named one by one, never by schema: in a move within one database, the target's must not be among them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from strata.migrator.replication_errors import PublicationMissingError
from strata.platform.database.addresses import parse
from strata.platform.database.administration import administrator
from strata.platform.database.names import literal, quoted

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy import URL

    from strata.migrator.sessions import Reign
    from strata.migrator.tables import Home, TenantTables

_TABLES = """
SELECT n.nspname, c.relname, pg_get_expr(r.prqual, r.prrelid) AS filter
FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = $1
"""
_SETTINGS = """
SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot AND NOT puballtables
FROM pg_publication WHERE pubname = $1
"""


async def create(home: Home, name: str, tables: TenantTables, reign: Reign | None = None) -> None:
    """Publish the tenant's rows of every table; changes nothing when it is there as it should be."""
    async with _holding(home.url, reign) as admin:
        if await admin.fetchval("SELECT 1 FROM pg_publication WHERE pubname = $1", name):
            await check(home, name, tables)
            return
        # A filter would be evaluated for nothing where all rows are the tenant's.
        only = "" if home.exclusive else f" WHERE (tenant_id = {_tenant(home.tenant_id)})"
        listed = ", ".join(f"{table.qualified}{only}" for table in tables.tables)
        await admin.execute(
            f"CREATE PUBLICATION {quoted(name)} FOR TABLE {listed}"
            " WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)"
        )


async def check(home: Home, name: str, tables: TenantTables) -> None:
    """PublicationMissingError unless it publishes exactly this tenant's rows of exactly these tables."""
    async with administrator(home.url) as admin:
        sound = await admin.fetchval(_SETTINGS, name)
        rows = await admin.fetch(_TABLES, name)
    if sound is None:
        raise PublicationMissingError(name, "does not exist")
    published = {row["relname"]: row["filter"] for row in rows if row["nspname"] == home.schema_name}
    if not sound or len(published) != len(rows) or published.keys() != tables.by_name.keys():
        raise PublicationMissingError(name, "publishes other tables, or other changes, than the move needs")
    filtered = {condition is not None and str(home.tenant_id) in condition for condition in published.values()}
    if filtered != {not home.exclusive}:
        raise PublicationMissingError(name, "publishes other rows than this tenant's")


async def drop(dsn: str, name: str, reign: Reign | None = None) -> None:
    async with _holding(parse(dsn), reign) as admin:
        await admin.execute(f"DROP PUBLICATION IF EXISTS {quoted(name)}")


@asynccontextmanager
async def _holding(url: URL, reign: Reign | None) -> AsyncIterator[asyncpg.Connection]:
    """As `sessions.held`, on the other driver."""
    async with administrator(url) as admin, admin.transaction():
        if reign is not None:
            await admin.execute("SELECT strata.hold_attempt($1, $2)", reign.tenant_id, reign.attempt)
        yield admin


def _tenant(tenant_id: UUID) -> str:
    return f"{literal(str(tenant_id))}::uuid"
