"""A platform whose second server has a streaming standby, and what tests do to that standby."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import msgspec

from strata.platform.database import addresses
from strata.platform.database.lsn import Lsn
from strata.platform.embedded import EmbeddedPostgres, EmbeddedStandby
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.provisioning.standbys import add_replica
from strata.tenancy.replicas.door import standby_entry_message
from tests.builders.platform import ACTOR, SECOND_CELL, SECOND_SERVER, admin_of

REPLICA = "near"


class Replicated(msgspec.Struct, frozen=True):
    """Server `two` with cell `cell-2` is a primary, and `near` its standby. The catalog is on server `one`."""

    runtime: Runtime
    primary: EmbeddedPostgres
    standby: EmbeddedStandby

    async def id(self) -> UUID:
        [registration] = await self.runtime.replicas.of_cell(SECOND_CELL)
        return registration.id

    @asynccontextmanager
    async def on_standby(self) -> AsyncIterator[asyncpg.Connection]:
        """Its administrator, in the cell's database."""
        [registration] = await self.runtime.replicas.of_cell(SECOND_CELL)
        connection = await asyncpg.connect(addresses.libpq(registration.url))
        try:
            yield connection
        finally:
            await connection.close()

    async def lease(self) -> None:
        """As the watch of a process does each second."""
        async with admin_of(self.runtime, SECOND_CELL) as admin:
            await admin.execute("SELECT strata.lease_standbys($1)", [await self.id()])
        await self.caught_up()

    async def caught_up(self) -> None:
        """The standby has replayed what the primary has written so far."""
        async with admin_of(self.runtime, SECOND_CELL) as admin, self.on_standby() as standby:
            # A record of its own, flushed: an asynchronous commit before it travels with it.
            position = await admin.fetchval("SELECT pg_logical_emit_message(false, 'tests', 'flush', true)::text")
            async with asyncio.timeout(10):
                while not await standby.fetchval(  # noqa: ASYNC110 - the event is in PostgreSQL
                    "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", position
                ):
                    await asyncio.sleep(0.01)

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """The standby receives and replays nothing; at the end it goes on, and catches up."""
        async with self.on_standby() as standby:
            await standby.execute("SELECT pg_wal_replay_pause()")
            async with asyncio.timeout(10):
                while await standby.fetchval("SELECT pg_get_wal_replay_pause_state()") != "paused":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            try:
                yield
            finally:
                await standby.execute("SELECT pg_wal_replay_resume()")
        await self.caught_up()

    @asynccontextmanager
    async def as_application(self, *, standby: bool = True) -> AsyncIterator[asyncpg.Connection]:
        """The application's role in the cell's database, on the standby or on the primary."""
        cell = await self.runtime.registry.cell(SECOND_CELL)
        port = self.standby.port if standby else self.primary.port
        connection = await asyncpg.connect(addresses.libpq(cell.url.set(port=port)), statement_cache_size=0)
        try:
            yield connection
        finally:
            connection.terminate()

    async def message(self, context: TenantContext, *, after: Lsn | None = None, standby: UUID | None = None) -> str:
        cell = await self.runtime.registry.cell(SECOND_CELL)
        return standby_entry_message(cell.secret, context, standby or await self.id(), after)


async def register(runtime: Runtime, standby: EmbeddedStandby, name: str = REPLICA) -> None:
    await add_replica(
        runtime.registry, runtime.replicas, SECOND_SERVER, name, addresses.parse(standby.dsn()), actor=ACTOR
    )
