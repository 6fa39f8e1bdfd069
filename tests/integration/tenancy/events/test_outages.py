"""The relay dies, Redis is gone, a cell restarts: every event still has its effect, once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import msgspec
import pytest
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from strata.events import relaying
from strata.inventory.aggregates import consumer as aggregates
from strata.inventory.aggregates.models import WarehouseStock
from strata.inventory.aggregates.repository import differences
from strata.platform.database.administration import administrator
from strata.platform.database.names import quoted
from strata.platform.embedded import EmbeddedRedis
from strata.platform.redis_link import RedisLink
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.events.bell import CHANNEL
from strata.tenancy.model import Tier
from tests.builders.events import Notebook, all_told, note, told, until, waiting
from tests.builders.inventory import move, stocked
from tests.builders.platform import Tenantry, second_process

ROOT = Path(__file__).parents[4]


@asynccontextmanager
async def relay_process(runtime: Runtime, where: str, cell: str) -> AsyncIterator[Process]:
    """Running, with the lease of the cell. (Of all: dedicated ones come and go with other tests' tenants.)"""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.tenancy.events.relay_process",
        where,
        cwd=ROOT,
        stdin=PIPE,
        stdout=PIPE,
    )
    assert process.stdin is not None
    settings = runtime.settings
    assert settings.database_url is not None
    assert settings.redis_url is not None
    given = {
        "database_url": settings.database_url.get_secret_value(),
        "redis_url": settings.redis_url.get_secret_value(),
        "role_prefix": settings.role_prefix,
        "data_dir": str(settings.data_dir),
        "cell": cell,
    }
    process.stdin.write(msgspec.json.encode(given))
    process.stdin.close()
    try:
        assert await said(process) == "relaying"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(process: Process) -> str:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 30)
    return line.decode().strip()


async def on_hand(runtime: Runtime, context: TenantContext) -> int:
    async with runtime.tenants.reading(context) as session:
        assert await differences(session) == []
        return (await session.scalars(select(WarehouseStock.on_hand))).one()


async def holders_of_leases(catalog: asyncpg.Connection) -> set[int]:
    """The back ends of relays, by the class of their advisory locks."""
    rows = await catalog.fetch(
        "SELECT DISTINCT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        " WHERE l.locktype = 'advisory' AND l.classid = 7530 AND l.granted AND d.datname = current_database()"
    )
    return {row["pid"] for row in rows}


@pytest.mark.parametrize("where", ["after-effect", "before-acknowledgement"])
async def test_a_relay_killed_in_the_middle_is_followed_by_another(
    runtime: Runtime, tenant_on: Tenantry, where: str
) -> None:
    context = await tenant_on(Tier.SCHEMA)
    cell = context.placement.cell
    await stocked(runtime, context, skus=1, bins=1)
    async with relay_process(runtime, where, cell) as process, relaying(runtime, [aggregates.CONSUMER]) as second:
        for _ in range(5):
            async with runtime.tenants.transaction(context) as session:
                await move(session, "receive", ("S-0", "B-0", 2))
        assert await said(process) == "stopped"
        await asyncio.sleep(0.3)
        # The second one sees the events, and that they are another's to deliver.
        assert cell not in second.relaying
        assert await waiting(runtime, context) > 0
        os.kill(process.pid, signal.SIGKILL)
        await all_told(runtime, context)
    assert await on_hand(runtime, context) == 10


async def test_without_redis_the_relay_looks_by_itself(
    runtime: Runtime, tenant_on: Tenantry, stoppable_redis: EmbeddedRedis
) -> None:
    context, notebook = await tenant_on(Tier.SHARED), Notebook()
    async with second_process(runtime, redis_url=SecretStr(stoppable_redis.url)) as other, told(other, notebook):
        await note(other, context, 1)
        await until(lambda: notebook.numbers(context) == [1], "not heard")
        stoppable_redis.stop()
        await note(other, context, 2)
        await until(lambda: notebook.numbers(context) == [1, 2], "not found", within_s=5)
        stoppable_redis.start()
        await note(other, context, 3)
        await until(lambda: notebook.numbers(context) == [1, 2, 3], "not heard again", within_s=5)


async def test_a_ring_that_cannot_be_read_deafens_nobody(runtime: Runtime, tenant_on: Tenantry) -> None:
    context, notebook = await tenant_on(Tier.SHARED), Notebook()
    link = RedisLink(runtime.settings.redis_url.get_secret_value(), timeout_s=1)  # type: ignore[union-attr]
    async with told(runtime, notebook) as relay:
        await link.start()
        try:
            heard: int = await link.run(lambda client: client.publish(CHANNEL, b"\xff"))
        finally:
            await link.close()
        assert heard
        await asyncio.sleep(0.2)
        assert relay._ear.hears
        await note(runtime, context, 1)
        await all_told(runtime, context)


async def test_a_cell_that_was_away_is_relayed_when_it_is_back(runtime: Runtime, tenant_on: Tenantry) -> None:
    """No connection can be made for a while and all of before are dead, as in a restart; other cells do not notice."""
    context, neighbour, notebook = await tenant_on(Tier.DEDICATED), await tenant_on(Tier.SHARED), Notebook()
    database = (await runtime.registry.cell(context.placement.cell)).url.database
    assert database is not None
    server = (await runtime.registry.admin_url_of_cell(context.placement.cell)).set(database="postgres")
    async with told(runtime, notebook), administrator(server) as admin:
        await note(runtime, context, 1)
        await all_told(runtime, context)
        notebook.out_of_reach = True
        await note(runtime, context, 2)
        await until(lambda: notebook.calls > 1, "not tried")
        await admin.execute(f"ALTER DATABASE {quoted(database)} ALLOW_CONNECTIONS false")
        try:
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database)
            notebook.out_of_reach = False
            await note(runtime, neighbour, 1)
            await until(lambda: notebook.numbers(neighbour) == [1], "the neighbour waits")
        finally:
            await admin.execute(f"ALTER DATABASE {quoted(database)} ALLOW_CONNECTIONS true")
        await note(runtime, context, 3)
        await all_told(runtime, context)
    assert notebook.numbers(context) == [1, 2, 3]


async def test_a_relay_that_loses_its_lease_takes_it_again(runtime: Runtime, tenant_on: Tenantry) -> None:
    context, notebook = await tenant_on(Tier.SHARED), Notebook()
    cell = context.placement.cell
    async with told(runtime, notebook) as relay, administrator(runtime.catalog_url) as admin:
        await until(lambda: cell in relay.relaying, "no lease")
        held_by = await holders_of_leases(admin)
        await admin.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", list(held_by))

        async def taken_again() -> bool:
            # By another connection: a lease that is believed in though it is gone would never be asked for again.
            return cell in relay.relaying and bool(await holders_of_leases(admin) - held_by)

        await until(taken_again, "the lease is not taken again")
        await note(runtime, context, 1)
        await all_told(runtime, context)
    assert notebook.numbers(context) == [1]


@pytest.mark.parametrize(
    "farewell", [asyncpg.InternalClientError("unexpected"), asyncpg.InterfaceError("connection is closed"), OSError()]
)
async def test_whatever_a_lost_catalog_is_called_the_relay_goes_on(
    runtime: Runtime, tenant_on: Tenantry, monkeypatch: pytest.MonkeyPatch, farewell: Exception
) -> None:
    context, notebook = await tenant_on(Tier.SHARED), Notebook()
    met = asyncio.Event()
    async with told(runtime, notebook) as relay:
        await until(lambda: context.placement.cell in relay.relaying, "no lease")

        async def lose() -> None:
            monkeypatch.undo()
            met.set()
            raise farewell

        monkeypatch.setattr(relay._outboxes, "cells", lose)
        await met.wait()
        await note(runtime, context, 1)
        await all_told(runtime, context)
    assert notebook.numbers(context) == [1]


async def test_a_relay_that_gets_no_connection_to_the_catalog_goes_on_when_it_does(
    runtime: Runtime, tenant_on: Tenantry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool of its process is used up for longer than anybody waits: no driver has said anything."""
    context, notebook = await tenant_on(Tier.SHARED), Notebook()
    async with second_process(runtime) as other, told(other, notebook) as relay:
        await until(lambda: context.placement.cell in relay.relaying, "no lease")
        monkeypatch.setattr(other.catalog_engine.pool, "_timeout", 0.1)
        async with AsyncExitStack() as taken:
            with pytest.raises(PoolTimeoutError):
                while True:
                    _ = await taken.enter_async_context(other.catalog_engine.connect())
            await until(lambda: not relay.relaying, "it has noticed nothing")
        await note(runtime, context, 1)
        await all_told(runtime, context)
    assert notebook.numbers(context) == [1]
