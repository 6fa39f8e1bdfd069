"""Redis goes, hangs, comes back, forgets: requests go on, and nobody believes what was true before."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
import redis.asyncio

from strata.platform.embedded import EmbeddedRedis
from strata.platform.redis_link import RedisDownError
from strata.platform.settings import CacheSettings
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.context_loader import CatalogUnavailableError
from strata.tenancy.model import Tier
from tests.builders.contexts import PATIENT, CacheProcess, cache_process, eventually, rename
from tests.builders.platform import Tenantry


@pytest.fixture
async def process(runtime: Runtime, stoppable_redis: EmbeddedRedis) -> AsyncIterator[CacheProcess]:
    async with cache_process(runtime.catalog_engine, stoppable_redis.url) as one:
        yield one


@pytest.fixture
async def neighbour(runtime: Runtime, stoppable_redis: EmbeddedRedis) -> AsyncIterator[CacheProcess]:
    async with cache_process(runtime.catalog_engine, stoppable_redis.url) as one:
        yield one


@pytest.fixture
async def tenant_ids(tenant_on: Tenantry) -> list[UUID]:
    return [(await tenant_on(Tier.SHARED)).id for _ in range(5)]


@contextmanager
def hung(server: EmbeddedRedis) -> Iterator[None]:
    """The server keeps its connections and says nothing, as behind a network that drops packets."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def test_redis_killed_and_started_again_under_traffic_costs_no_request(
    process: CacheProcess, stoppable_redis: EmbeddedRedis, tenant_ids: list[UUID]
) -> None:
    going = True
    answered: list[TenantContext] = []

    async def traffic(number: int) -> None:
        while going:
            wanted = tenant_ids[number % len(tenant_ids)]
            number += 1
            if number % 7 == 0:
                process.cache.clear()  # so that Redis is asked all the time, not the process's own memory
            context = await process.cache.get_by_id(wanted)
            assert context.id == wanted
            answered.append(context)
            await asyncio.sleep(0.001)

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(traffic(number))
        for _ in range(3):
            await asyncio.sleep(0.2)
            await asyncio.to_thread(stoppable_redis.stop)
            await eventually(lambda: not process.link.up)
            during = len(answered)
            await eventually(lambda during=during: len(answered) > during + 50)  # type: ignore[misc]
            await asyncio.to_thread(stoppable_redis.start)
            await eventually(lambda: process.link.up)
        await asyncio.sleep(0.2)
        going = False
    assert len(answered) > 150


async def test_a_hung_redis_delays_a_few_requests_by_its_timeout_and_then_none(
    runtime: Runtime, stoppable_redis: EmbeddedRedis, tenant_ids: list[UUID]
) -> None:
    settings = CacheSettings(redis_timeout_s=0.2)
    async with cache_process(runtime.catalog_engine, stoppable_redis.url, settings) as process:
        with hung(stoppable_redis):
            for _ in range(10):
                process.cache.clear()
                await process.cache.get_by_id(tenant_ids[0])
                if not process.link.up:
                    break
            assert not process.link.up
            started = time.monotonic()
            with pytest.raises(RedisDownError):
                await process.link.run(lambda client: client.ping())
            assert time.monotonic() - started < settings.redis_timeout_s, "refused at once, not tried"
            assert (await process.cache.get_by_id(tenant_ids[1])).id == tenant_ids[1]
        await eventually(lambda: process.link.up)


async def test_silence_on_the_subscription_is_noticed_though_nobody_asks_anything(
    process: CacheProcess, stoppable_redis: EmbeddedRedis, tenant_ids: list[UUID]
) -> None:
    await process.cache.get_by_id(tenant_ids[0])
    with hung(stoppable_redis):
        await eventually(lambda: not process.link._up)
    await eventually(lambda: process.link.up)
    assert process.cache.peek(tenant_ids[0]) is None, "it came back by a new subscription, and forgot what it held"


async def test_without_redis_a_context_lives_shortly_counted_when_it_is_asked_for(
    process: CacheProcess, stoppable_redis: EmbeddedRedis, runtime: Runtime, tenant_ids: list[UUID]
) -> None:
    now = 1000.0
    process.cache._clock = lambda: now
    await process.cache.get_by_id(tenant_ids[0])
    now += PATIENT.context_ttl_without_redis_s + 1
    assert process.cache.peek(tenant_ids[0]) is not None, "while Redis is there it lives longer"

    await asyncio.to_thread(stoppable_redis.stop)
    await eventually(lambda: not process.link.up)
    assert process.cache.peek(tenant_ids[0]) is None
    await rename(runtime.catalog_engine, tenant_ids[0], "Changed in the dark")
    assert (await process.cache.get_by_id(tenant_ids[0])).name == "Changed in the dark"


async def test_a_change_that_could_not_be_announced_is_announced_later(
    process: CacheProcess,
    neighbour: CacheProcess,
    stoppable_redis: EmbeddedRedis,
    runtime: Runtime,
    tenant_ids: list[UUID],
) -> None:
    await neighbour.cache.get_by_id(tenant_ids[0])
    # Only the announcer is cut off: its neighbour hears Redis well, and would go on believing.
    process.link._up = False
    version = await rename(runtime.catalog_engine, tenant_ids[0], "Said later")
    await process.cache.announce(tenant_ids[0])
    assert process.cache._unsent == {tenant_ids[0]}
    held = neighbour.cache.peek(tenant_ids[0])
    assert held is not None
    assert held.version < version

    process.link._up = True
    await eventually(lambda: neighbour.cache.peek(tenant_ids[0]) is None)
    assert (await neighbour.cache.get_by_id(tenant_ids[0])).name == "Said later"
    await eventually(lambda: not process.cache._unsent)
    await asyncio.to_thread(stoppable_redis.stop)  # and ends without one
    await process.cache.announce(tenant_ids[1])


async def test_what_was_missed_while_away_is_not_believed_after(
    process: CacheProcess, stoppable_redis: EmbeddedRedis, runtime: Runtime, tenant_ids: list[UUID]
) -> None:
    await process.cache.get_by_id(tenant_ids[0])
    async with redis.asyncio.Redis.from_url(stoppable_redis.url) as admin:
        await rename(runtime.catalog_engine, tenant_ids[0], "Missed")
        # What the announcer would have put there; then every subscriber's connection breaks, and the message is lost.
        snapshot = await process.loader.by_id(tenant_ids[0])
        assert snapshot is not None
        await process.cache._store.write(snapshot)
        await admin.client_kill_filter(_type="pubsub")
    await eventually(lambda: process.cache.peek(tenant_ids[0]) is None)
    assert (await process.cache.get_by_id(tenant_ids[0])).name == "Missed"


async def test_a_catalog_that_is_away_does_not_take_down_tenants_read_before(
    process: CacheProcess, stoppable_redis: EmbeddedRedis, tenant_ids: list[UUID]
) -> None:
    now = 1000.0
    process.cache._clock = lambda: now
    known = await process.cache.get_by_id(tenant_ids[0])
    await asyncio.to_thread(stoppable_redis.stop)
    await eventually(lambda: not process.link.up)
    now += PATIENT.context_ttl_without_redis_s + 1
    process.loader.break_off()
    assert await process.cache.get_by_id(tenant_ids[0]) == known
    assert await process.cache.get_by_slug(known.slug) == known
    now += PATIENT.context_ttl_s
    with pytest.raises(CatalogUnavailableError):
        await process.cache.get_by_id(tenant_ids[0])


async def test_a_process_starts_without_redis(
    runtime: Runtime, stoppable_redis: EmbeddedRedis, tenant_ids: list[UUID]
) -> None:
    await asyncio.to_thread(stoppable_redis.stop)
    async with cache_process(runtime.catalog_engine, stoppable_redis.url) as process:
        assert not process.link.up
        assert (await process.cache.get_by_id(tenant_ids[0])).id == tenant_ids[0]
        await asyncio.to_thread(stoppable_redis.start)
        await eventually(lambda: process.link.up)


async def test_requests_cancelled_while_redis_answers_leave_no_reply_for_the_next(
    process: CacheProcess, tenant_ids: list[UUID]
) -> None:
    for tenant_id in tenant_ids:
        await process.cache.fresh(tenant_id)

    async def ask(number: int) -> None:
        wanted = tenant_ids[number % len(tenant_ids)]
        process.cache.clear()
        found = await process.cache._store.read(wanted)
        assert found is None or found[0].id == wanted

    for round_ in range(60):
        tasks = [asyncio.create_task(ask(number)) for number in range(10)]
        for _ in range(round_ % 12):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results), results
    assert process.link.up
