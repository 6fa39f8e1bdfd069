"""Make a cell: a database with the control schema, and the schema its tenants' tables stand in."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from strata.platform.database.administration import administrator
from strata.platform.database.names import quoted
from strata.platform.errors import ConflictError
from strata.tenancy.catalog.audit import record
from strata.tenancy.catalog.registry import Registry
from strata.tenancy.catalog.tables import CellRow, ServerRow
from strata.tenancy.cell.schema_revisions import CONTROL_SCHEMA, Chains, upgrade_schema
from strata.tenancy.model import DEDICATED_SCHEMA, SHARED_SCHEMA, CellKind, CellState

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy import URL

    from strata.platform.database.revisions import RevisionChain

SHARED_PARTITIONS = 8
SHARED_CAPACITY = 10_000
TURN_TIMEOUT = "60s"


Guard = Callable[["asyncpg.Connection"], Awaitable[None]]
"""Awaited before something is made or destroyed, in the same transaction or turn; raises to keep it from happening."""


async def nobody_else(_: asyncpg.Connection) -> None:
    """The guard of who has what it works on alone."""


class CellBuilder:
    def __init__(self, catalog: AsyncEngine, registry: Registry, chains: Chains, role_prefix: str) -> None:
        self._sessions = async_sessionmaker(catalog, expire_on_commit=False)
        self._registry = registry
        self._chains = chains
        self._prefix = role_prefix

    async def add_shared(
        self,
        name: str,
        server: str,
        *,
        actor: str,
        region: str | None = None,
        capacity: int = SHARED_CAPACITY,
        plans: Sequence[str] | None = None,
    ) -> bool:
        """Make a shared cell; False when it was there already. A cell left half made is finished.

        `plans`: kept for tenants of these; None: for any.
        """
        async with self._sessions.begin() as session:
            host = await Registry.server_row(session, server)
            row = await session.scalar(select(CellRow).where(CellRow.name == name).with_for_update())
            if row is not None and row.server_id != host.id:
                message = f"There is a cell «{name}» on another server; choose another name."
                raise ConflictError(message)
            if row is not None and row.state != CellState.BUILDING:
                return False
            if row is None:
                row = await self.register(session, name, host, CellKind.SHARED, region=region, capacity=capacity)
                row.plans = None if plans is None else list(plans)
                record(session, actor, "cell.add", name, detail={"server": server, "capacity": capacity})
        await self.build(row.name)
        return True

    async def register(
        self, session: object, name: str, server: ServerRow, kind: CellKind, *, region: str | None, capacity: int
    ) -> CellRow:
        """Write the row of a cell to be built, before anything of it is made."""
        row = CellRow(
            name=name,
            server_id=server.id,
            database=f"{self._prefix}_{name}".replace("-", "_"),
            kind=kind,
            region=region or server.region,
            capacity=capacity,
            state=CellState.BUILDING,
            secret_sealed=await self._registry.seal_cell_secret(name, secrets.token_bytes(32)),
        )
        session.add(row)  # type: ignore[attr-defined]
        return row

    async def build(self, name: str, guard: Guard = nobody_else) -> None:
        """Make a registered cell's database and bring it to head. Rerunnable: each act is skipped when it was done."""
        async with self._sessions() as session:
            row = await Registry.cell_row(session, name)
            server = await session.get_one(ServerRow, row.server_id)
        secret = await self._registry.cell_secret(row)
        ipad, opad = secret.padded()
        schema = SHARED_SCHEMA if row.kind == CellKind.SHARED else DEDICATED_SCHEMA
        async with administrator(await self._registry.admin_url(server)) as admin:
            await create_database(admin, row.database, guard)
        async with administrator(await self._registry.admin_url(server, row.database)) as admin:
            install = {
                "name": row.name,
                "app_role": server.app_role,
                "partitions": str(SHARED_PARTITIONS if row.kind == CellKind.SHARED else 1),
                "ipad": ipad,
                "opad": opad,
            }
            await upgrade_schema(admin, CONTROL_SCHEMA, self._chains.cell, install)
            async with admin.transaction():
                await make_schema(admin, schema, server.app_role, self._chains.tenant)
            timeline = await admin.fetchval("SELECT timeline FROM strata.cell")
        async with self._sessions.begin() as session:
            built = await Registry.cell_row(session, name)
            built.state, built.timeline = CellState.OPEN, timeline

    async def remove_database(self, cell: CellRow, server: ServerRow) -> None:
        await self.drop_database(await self._registry.admin_url(server), cell.database)

    @staticmethod
    async def drop_database(server: URL, database: str) -> None:
        """`server`: its administrator's address. Done already, it is done."""
        async with administrator(server) as admin:
            await _take_turns(admin, database)
            await admin.execute(f"DROP DATABASE IF EXISTS {quoted(database)} WITH (FORCE)")


async def create_database(admin: asyncpg.Connection, name: str, guard: Guard = nobody_else) -> None:
    await _take_turns(admin, name)
    # Whoever drops it takes the turn after this one, or has had it, and then the guard knows.
    await guard(admin)
    if await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
        return
    # template0: whatever somebody put into template1 would stand in every cell, outside of its walls.
    await admin.execute(f"CREATE DATABASE {quoted(name)} TEMPLATE template0 ENCODING 'UTF8'")


async def _take_turns(admin: asyncpg.Connection, database: str) -> None:
    """Hold the right to make or drop a database, until the connection is closed.

    CREATE DATABASE is no part of a transaction: begun by a process that was then killed, it goes on to its end in the
    back end. Whoever clears up after that process must wait for it, or it would drop nothing and leave the database.
    """
    await admin.execute("SELECT set_config('lock_timeout', $1, false)", TURN_TIMEOUT)
    await admin.execute("SELECT pg_advisory_lock(hashtextextended($1, 7528))", database)


async def make_schema(admin: asyncpg.Connection, schema: str, role: str, chain: RevisionChain) -> None:
    """A schema with every tenant table at head, reachable for `role` alone; in the caller's transaction."""
    await admin.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
    await admin.execute(f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {quoted(role)}")
    await upgrade_schema(admin, schema, chain)
