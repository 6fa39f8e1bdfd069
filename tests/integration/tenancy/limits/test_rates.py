"""Requests a minute: exact over processes, without asking Redis each time, and bounded when Redis is gone or slow."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from strata.platform.embedded import EmbeddedRedis
from strata.platform.settings import LimitSettings
from strata.tenancy.limits.errors import VIOLATED, RateExceededError
from strata.tenancy.plans import Limits
from tests.builders.contexts import eventually
from tests.builders.limits import PATIENT, LimitingProcess, limiting_process
from tests.servers import RedisServer


@pytest.fixture
async def one(redis_server: RedisServer) -> AsyncIterator[LimitingProcess]:
    async with limiting_process(redis_server.url) as process:
        yield process


@pytest.fixture
async def other(redis_server: RedisServer) -> AsyncIterator[LimitingProcess]:
    async with limiting_process(redis_server.url) as process:
        yield process


async def test_processes_that_share_a_bucket_never_let_through_more_than_it_gave(
    one: LimitingProcess, other: LimitingProcess
) -> None:
    tenant_id, limits = uuid4(), Limits(api_rate_per_minute=120, api_rate_per_key_per_minute=10_000)
    began = time.monotonic()
    admitted = await asyncio.gather(
        *(
            process.admitted(tenant_id, limits, subject=f"key {n}", asked=50)
            for process in (one, other)
            for n in range(4)
        )
    )
    passed_s = time.monotonic() - began
    # A full bucket, and what flowed in meanwhile; of 400 that asked.
    assert sum(admitted) <= 120 + 2 * passed_s + 1
    # And hardly less: what a process still holds is a twentieth of a minute's at most.
    assert sum(admitted) >= 120 - 2 * 6
    assert one.rates.statistics.by_own_share == other.rates.statistics.by_own_share == 0


async def test_what_one_process_leased_and_did_not_spend_another_one_gets(redis_server: RedisServer) -> None:
    tenant_id, limits = uuid4(), Limits(api_rate_per_minute=60)
    quick = LimitSettings(redis_patience_s=5.0, lease_s=0.2)
    async with limiting_process(redis_server.url, quick) as hoarder, limiting_process(redis_server.url) as other:
        spent = await hoarder.admitted(tenant_id, limits, asked=30)
        allowance = hoarder.rates.allowance(tenant_id, "key", limits)
        assert allowance is not None
        bucket = allowance.buckets[0]
        await eventually(lambda: bucket.held == 0)
        assert spent + await other.admitted(tenant_id, limits, asked=60) >= 60


async def test_the_key_that_asks_too_much_is_told_so_and_the_others_go_on(one: LimitingProcess) -> None:
    tenant_id, limits = uuid4(), Limits(api_rate_per_minute=1000, api_rate_per_key_per_minute=6)
    greedy = one.rates.allowance(tenant_id, "greedy", limits)
    assert greedy is not None
    for _ in range(6):
        await one.rates.spend(greedy)
    with pytest.raises(RateExceededError) as refused:
        await one.rates.spend(greedy)
    assert refused.value.extra == {VIOLATED: ["key"]}
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 10
    assert refused.value.headers["RateLimit-Policy"] == '"tenant";q=1000;w=60, "key";q=6;w=60'
    assert '"key";r=0;t=' in refused.value.headers["RateLimit"]
    assert await one.admitted(tenant_id, limits, subject="modest", asked=3) == 3


async def test_most_requests_ask_nobody(one: LimitingProcess) -> None:
    tenant_id, limits = uuid4(), Limits(api_rate_per_minute=12_000, api_rate_per_key_per_minute=12_000)
    assert await one.admitted(tenant_id, limits, asked=2000) == 2000
    assert one.rates.statistics.refills < 200


async def test_a_refused_flood_does_not_reach_redis(one: LimitingProcess) -> None:
    tenant_id, limits = uuid4(), Limits(api_rate_per_minute=2)
    await one.admitted(tenant_id, limits, asked=3)
    asked = one.rates.statistics.refills
    assert await one.admitted(tenant_id, limits, asked=500) <= 2
    assert one.rates.statistics.refills <= asked + 3


async def test_a_changed_limit_counts_at_once(one: LimitingProcess) -> None:
    tenant_id = uuid4()
    assert await one.admitted(tenant_id, Limits(api_rate_per_minute=5), asked=20) == 5
    # A hundred a second now, where there was one in twelve seconds.
    async with asyncio.timeout(10):
        while not await one.admitted(tenant_id, Limits(api_rate_per_minute=6000), asked=20):  # noqa: ASYNC110 - time is what fills the bucket
            await asyncio.sleep(0.01)
    lowered = one.rates.allowance(tenant_id, "key", Limits(api_rate_per_minute=3))
    assert lowered is not None
    assert lowered.policy == b'"tenant";q=3;w=60'
    assert one.rates.allowance(tenant_id, "key", Limits()) is None


async def test_a_limit_of_nothing_lets_nobody_in(one: LimitingProcess) -> None:
    tenant_id, limits = uuid4(), Limits(api_rate_per_minute=0)
    assert await one.admitted(tenant_id, limits, asked=5) == 0
    allowance = one.rates.allowance(tenant_id, "key", limits)
    assert allowance is not None
    with pytest.raises(RateExceededError) as refused:
        await one.rates.spend(allowance)
    assert refused.value.headers["Retry-After"] == "60"
    assert refused.value.headers["RateLimit"] == '"tenant";r=0;t=60'


async def admitted_alone(process: LimitingProcess, limits: Limits, tenant_id: UUID) -> int:
    return await process.admitted(tenant_id, limits, asked=100)


async def test_without_redis_each_process_lets_its_share_through(stoppable_redis: EmbeddedRedis) -> None:
    limits = Limits(api_rate_per_minute=60)
    async with limiting_process(stoppable_redis.url) as one, limiting_process(stoppable_redis.url) as other:
        # Whoever serves nobody does not count: each has had a request.
        for process in (one, other):
            await process.admitted(uuid4(), limits, asked=1)
        await eventually(lambda: one.rates.presence.processes == other.rates.presence.processes == 2)
        await asyncio.to_thread(stoppable_redis.stop)
        await eventually(lambda: one.rates.alone and other.rates.alone)
        began, tenant_id = time.monotonic(), uuid4()
        admitted = [await admitted_alone(process, limits, tenant_id) for process in (one, other)]
        passed_s = time.monotonic() - began
        assert 60 <= sum(admitted) <= 60 + passed_s + 2
        assert one.rates.statistics.by_own_share == admitted[0]
        await asyncio.to_thread(stoppable_redis.start)
        await eventually(lambda: not one.rates.alone)
        before = one.rates.statistics.by_own_share
        assert await one.admitted(uuid4(), limits, asked=10) == 10
        assert one.rates.statistics.by_own_share == before


async def test_a_redis_that_hangs_holds_up_no_more_than_one_request_a_second(stoppable_redis: EmbeddedRedis) -> None:
    settings = PATIENT.model_copy(update={"redis_patience_s": 0.01})
    async with limiting_process(stoppable_redis.url, settings) as process:
        await process.admitted(uuid4(), Limits(api_rate_per_minute=600), asked=1)
        assert stoppable_redis.pid is not None
        os.kill(stoppable_redis.pid, signal.SIGSTOP)
        try:
            counted, began = process.rates.statistics, time.monotonic()
            waited = counted.waited
            admitted = await process.admitted(uuid4(), Limits(api_rate_per_minute=6000), asked=1000)
            passed_s = time.monotonic() - began
            assert admitted == 1000
            assert counted.by_own_share >= 1000
            assert counted.waited - waited <= passed_s + 2
        finally:
            os.kill(stoppable_redis.pid, signal.SIGCONT)
