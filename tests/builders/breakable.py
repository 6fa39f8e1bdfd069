"""A platform on servers of its own, which a test may kill and start again, with an application that serves."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from strata.events import relaying
from strata.platform.embedded import EmbeddedPostgres, EmbeddedRedis
from strata.platform.settings import FenceSettings
from strata.runtime import Runtime
from tests.builders.move_worker import QUICK
from tests.builders.moving import Movers
from tests.builders.platform import FIRST_CELL, Platform, Tenantry, new_platform, standing
from tests.builders.site import Site, serving
from tests.servers import PostgresServer, RedisServer

Server = EmbeddedPostgres | EmbeddedRedis


class Breakable(msgspec.Struct, frozen=True):
    """`first` has the catalog and `cell-1`, `second` has `cell-2`."""

    first: EmbeddedPostgres
    second: EmbeddedPostgres
    redis: EmbeddedRedis
    platform: Platform
    runtime: Runtime
    site: Site
    movers: Movers
    tenants: Tenantry

    def server_of(self, cell: str) -> EmbeddedPostgres:
        return self.first if cell == FIRST_CELL else self.second


async def kill(server: Server) -> None:
    """kill -9 of the server's first process; returns when it is gone."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    while server.running:  # noqa: ASYNC110 - another process's state
        await asyncio.sleep(0.01)


async def revive(server: Server) -> None:
    """Where it was, from what is on its disk; returns when it answers."""
    await asyncio.to_thread(server.start)


@asynccontextmanager
async def breakable(directory: Path) -> AsyncIterator[Breakable]:
    first, second = (EmbeddedPostgres(directory, f"breakable-{n}", durable=False) for n in (1, 2))
    redis = EmbeddedRedis(directory)
    try:
        for server in (first, second, redis):
            await revive(server)
        platform = new_platform(
            PostgresServer("breakable-1", first.dsn(), "embedded"),
            PostgresServer("breakable-2", second.dsn(), "embedded"),
            RedisServer(redis.url, "embedded"),
            directory,
        )
        async with (
            standing(platform, migrator=QUICK, fence=FenceSettings(wait_s=30)) as runtime,
            relaying(runtime),
            serving(runtime) as site,
        ):
            yield Breakable(first, second, redis, platform, runtime, site, Movers(runtime), Tenantry(runtime))
    finally:
        for each in (first, second, redis):
            await asyncio.to_thread(each.stop)
