"""A home on each tier: make it, remove it, and say what remains. The only place that does one thing per tier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from uuid import UUID

import msgspec

from strata.platform.database.administration import KeptConnections, administrator
from strata.platform.database.names import quoted
from strata.tenancy.cell.schema_revisions import Chains
from strata.tenancy.cell.tenant_tables import tenant_tables
from strata.tenancy.model import FenceState, Tier
from strata.tenancy.provisioning.cells import Guard, make_schema, nobody_else

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy import URL

    from strata.tenancy.catalog.tables import CellRow, PlacementRow, ServerRow
    from strata.tenancy.provisioning.cells import CellBuilder

LOCK_TIMEOUT = "10s"


class Site(msgspec.Struct, frozen=True):
    """A placement with what is needed to work on it as administrator."""

    tenant_id: UUID
    placement: PlacementRow
    cell: CellRow
    server: ServerRow
    server_url: URL
    cell_url: URL


class Home(Protocol):
    async def make(self, site: Site, guard: Guard) -> None:
        """Make the home and leave the fence alone: in a move, the fence is another home's yet. Rerunnable.

        The guard is asked before anything is made: on the cell's connection, or for a database on its server's.
        """

    async def unmake(self, site: Site, guard: Guard) -> None:
        """Undo `make`, whether there is all of it, a part or nothing; rows in common tables are left to the caller."""

    async def build(self, site: Site) -> None:
        """Make the home and open its fence. Dies half way: `remove` clears what there is."""

    async def remove(self, site: Site) -> None:
        """Remove every trace, whether there is all of it, a part or nothing."""

    async def remains(self, site: Site) -> dict[str, int]:
        """What is left, counted in the database itself: rows by table, fence rows, schemas, roles, databases."""


class SharedHome:
    async def make(self, site: Site, guard: Guard) -> None:
        """The tables stand there already."""

    async def unmake(self, site: Site, guard: Guard) -> None:
        """They stay there, too."""

    async def build(self, site: Site) -> None:
        async with administrator(site.cell_url) as admin, admin.transaction():
            await _open_fence(admin, site)

    async def remove(self, site: Site) -> None:
        async with administrator(site.cell_url) as admin, admin.transaction():
            await _close_door(admin, site.tenant_id)
            await admin.execute("SELECT set_config('row_security', 'off', true)")
            for table in await tenant_tables(admin, site.placement.schema_name):
                await admin.execute(
                    f"DELETE FROM {table.qualified} WHERE tenant_id = $1",  # noqa: S608 - name from pg_catalog, quoted
                    site.tenant_id,
                )

    async def remains(self, site: Site) -> dict[str, int]:
        async with administrator(site.cell_url) as admin, admin.transaction():
            await admin.execute("SELECT set_config('row_security', 'off', true)")
            left = {
                "fence rows": await _fence_rows(admin, site.tenant_id),
                "undelivered events": await _undelivered_events(admin, site.tenant_id),
            }
            for table in await tenant_tables(admin, site.placement.schema_name):
                left[f"rows in {table.qualified}"] = await admin.fetchval(
                    f"SELECT count(*) FROM {table.qualified} WHERE tenant_id = $1",  # noqa: S608 - name from pg_catalog, quoted
                    site.tenant_id,
                )
        return left


class SchemaHome:
    """A schema and the role that alone may reach it; made in one transaction, so that a death leaves nothing."""

    def __init__(self, chains: Chains, kept: KeptConnections) -> None:
        self._chains = chains
        self._kept = kept

    async def make(self, site: Site, guard: Guard) -> None:
        async with administrator(site.cell_url) as admin, admin.transaction():
            await guard(admin)
            await self._make(admin, site)

    async def unmake(self, site: Site, guard: Guard) -> None:
        async with administrator(site.cell_url) as admin, admin.transaction():
            await guard(admin)
            await _drop_schema_and_role(admin, site.placement.schema_name)

    async def build(self, site: Site) -> None:
        async with self._kept.connection(site.cell_url) as admin:
            # One that was kept ready (stock.py) lacks the fence alone.
            if await _revision(admin, site.placement.schema_name) == self._chains.tenant.head:
                await _open_fence(admin, site)
                return
            async with admin.transaction():
                await self._make(admin, site)
                await _open_fence(admin, site)

    async def _make(self, admin: asyncpg.Connection, site: Site) -> None:
        schema = site.placement.schema_name
        # Roles are the server's: while the tenant moves between two cells of one, its other home has this one already.
        if not await admin.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", schema):
            await admin.execute(f"CREATE ROLE {quoted(schema)} NOLOGIN NOINHERIT")
        # SET without INHERIT: the application takes the role on for a transaction and never has its rights besides.
        await admin.execute(
            f"GRANT {quoted(schema)} TO {quoted(site.server.app_role)} WITH INHERIT FALSE, SET TRUE"
            if await _has_grant_options(admin)
            else f"GRANT {quoted(schema)} TO {quoted(site.server.app_role)}"
        )
        await make_schema(admin, schema, schema, self._chains.tenant)

    async def remove(self, site: Site) -> None:
        async with administrator(site.cell_url) as admin, admin.transaction():
            await _close_door(admin, site.tenant_id)
            await _drop_schema_and_role(admin, site.placement.schema_name)

    async def remains(self, site: Site) -> dict[str, int]:
        schema = site.placement.schema_name
        async with administrator(site.cell_url) as admin:
            return {
                "fence rows": await _fence_rows(admin, site.tenant_id),
                "undelivered events": await _undelivered_events(admin, site.tenant_id),
                "schemas": await admin.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = $1", schema),
                "roles": await admin.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", schema),
                "revision rows": await admin.fetchval(
                    "SELECT count(*) FROM strata.revision WHERE schema_name = $1", schema
                ),
            }


class DedicatedHome:
    """A database of the tenant's own, which is a cell of its own."""

    def __init__(self, cells: CellBuilder) -> None:
        self._cells = cells

    async def make(self, site: Site, guard: Guard) -> None:
        await self._cells.build(site.cell.name, guard)

    async def unmake(self, site: Site, guard: Guard) -> None:
        if await _is_there(site):
            async with administrator(site.cell_url) as admin, admin.transaction():
                await guard(admin)
        # No database can be dropped from within: between the look and the drop only a later attempt could come, and the
        # guard has made sure that there is none, nor any way in.
        await self._cells.remove_database(site.cell, site.server)

    async def build(self, site: Site) -> None:
        await self.make(site, nobody_else)
        async with administrator(site.cell_url) as admin, admin.transaction():
            await _open_fence(admin, site)

    async def remove(self, site: Site) -> None:
        await self._cells.remove_database(site.cell, site.server)

    async def remains(self, site: Site) -> dict[str, int]:
        async with administrator(site.server_url) as admin:
            return {
                "databases": await admin.fetchval(
                    "SELECT count(*) FROM pg_database WHERE datname = $1", site.cell.database
                )
            }


def homes(chains: Chains, cells: CellBuilder, kept: KeptConnections) -> dict[Tier, Home]:
    return {Tier.SHARED: SharedHome(), Tier.SCHEMA: SchemaHome(chains, kept), Tier.DEDICATED: DedicatedHome(cells)}


async def _drop_schema_and_role(admin: asyncpg.Connection, schema: str) -> None:
    await admin.execute(f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE")
    await admin.execute("DELETE FROM strata.revision WHERE schema_name = $1", schema)
    if not await admin.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", schema):
        return
    await admin.execute(f"DROP OWNED BY {quoted(schema)}")
    # The home in another cell of this server has the same role.
    elsewhere = (
        "SELECT EXISTS (SELECT FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid WHERE r.rolname = $1"
        " AND d.refclassid = 'pg_authid'::regclass AND d.dbid NOT IN"
        " (0, (SELECT oid FROM pg_database WHERE datname = current_database())))"
    )
    if not await admin.fetchval(elsewhere, schema):
        await admin.execute(f"DROP ROLE {quoted(schema)}")


async def _is_there(site: Site) -> bool:
    """Whether the site's database has been made, and got as far as having a fence."""
    async with administrator(site.server_url) as admin:
        if not await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", site.cell.database):
            return False
    async with administrator(site.cell_url) as admin:
        made: bool = await admin.fetchval("SELECT to_regclass('strata.move_attempt') IS NOT NULL")
        return made


async def _open_fence(admin: asyncpg.Connection, site: Site) -> None:
    await admin.execute(
        "INSERT INTO strata.fence (tenant_id, epoch, state, schema_name) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (tenant_id) DO UPDATE SET epoch = excluded.epoch, state = excluded.state,"
        " schema_name = excluded.schema_name",
        site.tenant_id,
        site.placement.epoch,
        FenceState.ACTIVE.value,
        site.placement.schema_name,
    )


async def _close_door(admin: asyncpg.Connection, tenant_id: UUID) -> None:
    """Let nobody in any more and wait for those inside: the lock is held until the caller's transaction ends."""
    await admin.execute("SELECT set_config('lock_timeout', $1, true)", LOCK_TIMEOUT)
    await admin.execute("SELECT pg_advisory_xact_lock(strata.lock_key($1))", tenant_id)
    await admin.execute("DELETE FROM strata.fence WHERE tenant_id = $1", tenant_id)
    await admin.execute("DELETE FROM strata.move_attempt WHERE tenant_id = $1", tenant_id)
    await admin.execute("DELETE FROM strata.outbox WHERE tenant_id = $1", tenant_id)


async def _revision(admin: asyncpg.Connection, schema: str) -> str | None:
    found: str | None = await admin.fetchval("SELECT revision FROM strata.revision WHERE schema_name = $1", schema)
    return found


async def _fence_rows(admin: asyncpg.Connection, tenant_id: UUID) -> int:
    count: int = await admin.fetchval("SELECT count(*) FROM strata.fence WHERE tenant_id = $1", tenant_id)
    return count


async def _undelivered_events(admin: asyncpg.Connection, tenant_id: UUID) -> int:
    count: int = await admin.fetchval("SELECT count(*) FROM strata.outbox WHERE tenant_id = $1", tenant_id)
    return count


async def _has_grant_options(admin: asyncpg.Connection) -> bool:
    """PostgreSQL 16 brought GRANT … WITH INHERIT, SET; before, NOINHERIT on the member says the same."""
    version: int = await admin.fetchval("SELECT current_setting('server_version_num')::int")
    return version >= 160000  # noqa: PLR2004
