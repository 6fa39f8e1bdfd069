"""The target of a copy: bare while it fills, and empty again before another attempt (migrator protocol, step 2)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from strata.migrator.copy_sessions import Throttle, Warrant, defining, writing
from strata.migrator.fitness import has_rows
from strata.migrator.ranges import Walk
from strata.migrator.tables import TENANT_COLUMN, Home, TenantTables, describe
from strata.platform.database.names import quoted
from strata.platform.errors import StrataError
from strata.tenancy.provisioning.cells import make_schema

if TYPE_CHECKING:
    import asyncpg

    from strata.platform.database.revisions import RevisionChain


class SharedHomeError(StrataError):
    """Indexes and constraints of tables that other tenants use were about to be dropped; a programming error."""

    code = "shared-home"
    title = "Other tenants live here"


class ForeignRowsError(StrataError):
    code = "foreign-rows"
    title = "Rows of another tenant"

    def __init__(self, table: str) -> None:
        super().__init__(
            f"{table} is in a home of one tenant alone and holds rows of another; nothing was deleted. Find out whose "
            "they are before this home is used again."
        )


class StillFilledError(StrataError):
    code = "still-filled"
    title = "Rows keep appearing"

    def __init__(self, table: str) -> None:
        super().__init__(
            f"{table} had rows of the tenant again after they had been deleted: somebody else writes there."
        )


class Target:
    """What is done to a home before and between copies. Rerunnable after a death at any point."""

    def __init__(self, home: Home, warrant: Warrant | None = None) -> None:
        self._home = home
        self._warrant = warrant or Warrant()

    async def make_tables(self, role: str, chain: RevisionChain) -> None:
        """The schema with every table, for `role` alone. The role, and a dedicated cell's database, are there already."""
        async with defining(self._home, self._warrant) as admin, admin.transaction():
            await self._warrant.hold(admin)
            await make_schema(admin, self._home.schema_name, role, chain)

    async def strip(self) -> int:
        """Drop foreign keys, then indexes and the constraints on them, of a home that is the tenant's alone.

        `indexes.build` makes them again from the source's definitions. Filling bare tables and sorting once is what
        makes the copy fast.
        """
        if not self._home.exclusive:
            message = f"{self._home.schema_name} on cell {self._home.cell} is shared: its indexes stay."
            raise SharedHomeError(message)
        async with defining(self._home, self._warrant) as admin, admin.transaction():
            await self._warrant.hold(admin)
            statements = _stripping(await describe(admin, self._home.schema_name))
            for statement in statements:
                await admin.execute(statement)
            return len(statements) + await _drop_leaf_indexes(admin, self._home.schema_name)

    async def empty(self, *, origin: str | None = None, throttle: Throttle | None = None) -> int:
        """Delete this tenant's rows, and nobody else's; returns how many (0 where tables could be truncated)."""
        async with writing(self._home, self._warrant, origin=origin) as connection:
            tables = await describe(connection, self._home.schema_name)
            if self._home.exclusive:
                await self._truncate(connection, tables)
                return 0
            deleted = 0
            # Referring ones first, so that nobody ever sees a row that refers to nothing.
            for table in reversed(tables.tables):
                deleted += await self._delete(connection, Walk(table, self._home), throttle)
                if await has_rows(connection, self._home, table):
                    raise StillFilledError(table.name)
        return deleted

    async def is_empty(self) -> bool:
        async with defining(self._home, self._warrant) as connection:
            for table in (await describe(connection, self._home.schema_name)).tables:
                if await has_rows(connection, self._home, table):
                    return False
        return True

    async def _truncate(self, connection: asyncpg.Connection, tables: TenantTables) -> None:
        if not tables.tables:
            return
        names = ", ".join(table.qualified for table in tables.tables)
        async with connection.transaction():
            await self._warrant.hold(connection)
            await connection.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
            for table in tables.tables:
                # TRUNCATE knows no tenants. That only one lives here is looked up, not believed.
                if await connection.fetchval(
                    f"SELECT EXISTS (SELECT FROM {table.qualified} WHERE {quoted(TENANT_COLUMN)} <> $1)",  # noqa: S608 - names from pg_catalog
                    self._home.tenant_id,
                ):
                    raise ForeignRowsError(table.qualified)
            await connection.execute(f"TRUNCATE {names}")

    async def _delete(self, connection: asyncpg.Connection, walk: Walk, throttle: Throttle | None) -> int:
        """In short ranges of the key, each a transaction that first checks that it is still wanted."""
        deleted = 0
        while True:
            if throttle is not None:
                await throttle(0)
            begun = time.monotonic()
            async with connection.transaction():
                await self._warrant.hold(connection)
                found = await walk.take(connection)
                if found is None:
                    return deleted
                status = await connection.execute(f"DELETE FROM {walk.table.qualified} WHERE {found.condition}")  # noqa: S608 - names from pg_catalog, values as literals
            rows = int(status.removeprefix("DELETE "))
            deleted += rows
            walk.lasted(time.monotonic() - begun, rows)


def _stripping(tables: TenantTables) -> list[str]:
    statements = [
        f"ALTER TABLE {table.qualified} DROP CONSTRAINT {quoted(key.name)}"
        for table in tables.tables
        for key in table.foreign_keys
    ]
    for table in tables.tables:
        for index in table.indexes:
            if index.replica_identity:
                continue  # dropped, it would take the setting with it
            if index.constraint is not None:
                statements.append(f"ALTER TABLE {table.qualified} DROP CONSTRAINT {quoted(index.name)}")
            else:
                statements.append(f"DROP INDEX {quoted(table.schema)}.{quoted(index.name)}")
    return statements


# A build that died had made these on partitions and not joined them to their table's yet.
_LEAF_INDEXES = """
SELECT format('%I.%I', n.nspname, c.relname) AS name,
    CASE WHEN k.oid IS NOT NULL THEN format('ALTER TABLE %I.%I DROP CONSTRAINT %I', n.nspname, t.relname, k.conname)
        ELSE format('DROP INDEX %I.%I', n.nspname, c.relname) END AS statement
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid AND NOT c.relispartition
JOIN pg_class t ON t.oid = i.indrelid AND t.relispartition AND t.relkind = 'r'
JOIN pg_namespace n ON n.oid = t.relnamespace AND n.oid = $1::regnamespace
LEFT JOIN pg_constraint k ON k.conindid = c.oid AND k.conrelid = t.oid AND k.contype IN ('p', 'u', 'x')
WHERE NOT i.indisreplident
"""


async def _drop_leaf_indexes(admin: asyncpg.Connection, schema: str) -> int:
    rows = await admin.fetch(_LEAF_INDEXES, quoted(schema))
    for row in rows:
        await admin.execute(row["statement"])
    return len(rows)
