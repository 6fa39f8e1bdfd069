"""A platform whose second server is failed over to its standby, which may not have heard of what came last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import msgspec

from strata.migrator.approval.desk import ServerApproval
from strata.platform.database import addresses
from strata.platform.embedded import EmbeddedPostgres, EmbeddedStandby
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Placement
from strata.tenancy.provisioning.servers import add_server
from tests.builders.breakable import kill
from tests.builders.move_worker import QUICK
from tests.builders.moving import Movers
from tests.builders.open_homes import open_homes
from tests.builders.platform import (
    ACTOR,
    FIRST_CELL,
    REGIONS,
    SECOND_CELL,
    SECOND_SERVER,
    Platform,
    Tenantry,
    admin_of,
    new_platform,
    standing,
)
from tests.servers import PostgresServer, RedisServer


class FailingOver(msgspec.Struct, frozen=True):
    """Server `two` with cell `cell-2` has a standby; the catalog and `cell-1` are on server `one`."""

    primary: EmbeddedPostgres
    standby: EmbeddedStandby
    platform: Platform
    runtime: Runtime
    movers: Movers
    tenants: Tenantry

    async def deafen_standby(self) -> None:
        """The standby has all that was written so far, and hears of nothing that is written from now on."""
        async with admin_of(self.runtime, SECOND_CELL) as admin, self._on_standby() as standby:
            position = await admin.fetchval("SELECT pg_logical_emit_message(false, 'tests', 'flush', true)::text")
            while not await standby.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", position):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            await standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
            await standby.execute("SELECT pg_reload_conf()")
            while await standby.fetchval("SELECT EXISTS (SELECT FROM pg_stat_wal_receiver)"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def promote(self) -> None:
        """Kill -9 of the primary; the standby takes writes. The catalog has the primary's address yet."""
        await kill(self.primary)
        async with self._on_standby() as standby:
            await standby.fetchval("SELECT pg_promote(true, 60)")

    async def fail_over(self) -> None:
        """As `promote`; and the standby becomes the server that answers to its name."""
        await self.promote()
        await add_server(
            self.runtime.registry,
            SECOND_SERVER,
            addresses.parse(self.standby.dsn()),
            region=REGIONS[SECOND_SERVER],
            role_prefix=self.platform.prefix,
            actor=ACTOR,
        )
        # As a process that starts now: the address in the pools of one that runs is the old one.
        await self.runtime.engines.forget(SECOND_CELL)

    async def approve(self) -> ServerApproval:
        return await self.runtime.approvals.approve(SECOND_SERVER, ACTOR)

    async def lets_in(self, context: TenantContext, *placements: Placement) -> list[str]:
        """The cells that the application's role gets into as the tenant, at any of these placements."""
        return await open_homes(self.runtime, context, *placements)

    @asynccontextmanager
    async def _on_standby(self) -> AsyncIterator[asyncpg.Connection]:
        url = addresses.parse(self.standby.dsn())
        connection = await asyncpg.connect(addresses.libpq(url))
        try:
            yield connection
        finally:
            await connection.close()


@asynccontextmanager
async def failing_over(first: PostgresServer, redis: RedisServer, directory: Path) -> AsyncIterator[FailingOver]:
    primary = EmbeddedPostgres(directory, "failing-primary", durable=False)
    await asyncio.to_thread(primary.start)
    standby = EmbeddedStandby(directory, "failing-standby", primary.dsn(), durable=False)
    try:
        await asyncio.to_thread(standby.start)
        second = PostgresServer("failing-primary", primary.dsn(), "embedded")
        platform = new_platform(first, second, redis, directory)
        async with standing(platform, migrator=QUICK) as runtime:
            yield FailingOver(primary, standby, platform, runtime, Movers(runtime), Tenantry(runtime))
            # A move that was left retaining has its slot; with one, no database can be dropped.
            async with admin_of(runtime, FIRST_CELL) as admin:
                await admin.execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
                )
            # What is left is dropped on the server that answers now, or goes with both.
            if not primary.running:
                await asyncio.to_thread(standby.stop)
                await asyncio.to_thread(primary.start)
    finally:
        for server in (standby, primary):
            await asyncio.to_thread(server.stop)
