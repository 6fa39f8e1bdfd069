"""What a worker depends on dies: the worker itself, the catalog, Redis, a cell."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from strata.platform.embedded import EmbeddedPostgres, EmbeddedRedis
from strata.platform.jobs.store import JobState
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.command import clean_environment, environment_for
from tests.builders.jobs import (
    BRISK,
    SOON_S,
    Note,
    counted,
    ended,
    mortal,
    note,
    once,
    seen,
    until,
    until_put_off,
    working,
)
from tests.builders.platform import SECOND_CELL, Platform, Tenantry, new_platform, standing
from tests.servers import PostgresServer, RedisServer

ROOT = Path(__file__).parents[3]


@asynccontextmanager
async def worker_process(platform: Platform) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.jobs.worker_process",
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=clean_environment({"PYTHONPATH": str(ROOT), **environment_for(platform)}),
        cwd=ROOT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(90):
            assert await process.stdout.readline() == b"started\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def work_is_committed(runtime: Runtime, context: TenantContext, label: str) -> None:
    async with asyncio.timeout(SOON_S):
        while await counted(runtime, context, label) == 0:  # noqa: ASYNC110 - what another process does
            await asyncio.sleep(0.02)


async def test_what_a_killed_worker_had_is_taken_up_and_done_once(
    platform: Platform, runtime: Runtime, tenant_on: Tenantry
) -> None:
    context = await tenant_on(Tier.SCHEMA)
    async with worker_process(platform) as process:
        job = await runtime.jobs.defer(once, context.id, Note("killed", hold_s=3.0))
        await work_is_committed(runtime, context, "killed")
        process.send_signal(signal.SIGKILL)
        await process.wait()
    async with working(runtime):
        view = await ended(runtime, job)
    assert (view.state, view.lost, view.last_code) == (JobState.SUCCEEDED, 1, "worker-lost")
    assert seen.labels.count("killed") == 1, "it ran again, here"
    assert await counted(runtime, context, "killed") == 1


@pytest.mark.slow
async def test_a_worker_that_wakes_up_after_its_job_was_taken_changes_nothing(
    platform: Platform, runtime: Runtime, tenant_on: Tenantry
) -> None:
    context = await tenant_on(Tier.SHARED)
    async with worker_process(platform) as process:
        job = await runtime.jobs.defer(once, context.id, Note("frozen", hold_s=1.0))
        await work_is_committed(runtime, context, "frozen")
        process.send_signal(signal.SIGSTOP)
        async with working(runtime):
            view = await ended(runtime, job)
        process.send_signal(signal.SIGCONT)
        await asyncio.sleep(2.0)
        assert await runtime.jobs.status(job) == view
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert await counted(runtime, context, "frozen") == 1


async def test_a_job_that_takes_its_workers_with_it_becomes_a_dead_letter(
    runtime: Runtime, tenant_on: Tenantry
) -> None:
    context = await tenant_on(Tier.SHARED)
    job = await runtime.jobs.defer(mortal, context.id, Note("deadly"))
    lose = text(
        "UPDATE jobs.procrastinate_jobs SET status = 'doing', worker_id = NULL WHERE id = :id AND status = 'todo'"
    )
    async with working(runtime, queues=["bulk"]):  # takes it back, does not run it
        async with asyncio.timeout(20):
            while (view := await runtime.jobs.status(job)) and view.state is not JobState.FAILED:
                async with runtime.catalog_engine.begin() as connection:
                    await connection.execute(lose, {"id": job})
                await asyncio.sleep(0.05)
    assert view is not None
    assert (view.lost, view.last_code) == (3, "worker-lost")
    async with working(runtime):
        await until(lambda: [loss.died_of for loss in seen.losses if loss.label == "deadly"] == ["worker-lost"])


async def test_a_worker_that_is_stopped_lets_jobs_finish_and_gives_back_what_takes_too_long(
    runtime: Runtime, tenant_on: Tenantry
) -> None:
    context = await tenant_on(Tier.SHARED, plan="business")
    quick = await runtime.jobs.defer(once, context.id, Note("stop-quick", hold_s=0.5))
    slow = await runtime.jobs.defer(once, context.id, Note("stop-slow", hold_s=60))
    async with working(runtime, BRISK.model_copy(update={"stop_timeout_s": 1.0})):
        await until(lambda: {"stop-quick", "stop-slow"} <= set(seen.labels))
    views = [await runtime.jobs.status(job) for job in (quick, slow)]
    assert [view and view.state for view in views] == [JobState.SUCCEEDED, JobState.WAITING]
    assert await runtime.jobs.cancel(slow)


@pytest.fixture
def restartable(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path / "restartable", durable=False) as server:
        yield server


@pytest.fixture
def mortal_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "mortal") as server:
        yield server


async def test_a_worker_outlives_a_restart_of_the_catalog(
    restartable: EmbeddedPostgres, second_postgres_server: PostgresServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Jobs that run meanwhile finish, in a cell elsewhere, once; new ones are taken when it is back."""
    first = PostgresServer("restartable", restartable.dsn(), "embedded")
    platform = new_platform(first, second_postgres_server, redis_server, tmp_path)
    async with standing(platform) as own, working(own) as worker:
        context = await Tenantry(own)(Tier.SHARED, cell=SECOND_CELL, plan="business")
        job = await own.jobs.defer(once, context.id, Note("catalog", hold_s=1.0))
        await until(lambda: "catalog" in seen.labels)
        await asyncio.to_thread(restartable.stop)
        await asyncio.sleep(1.5)
        await asyncio.to_thread(restartable.start)
        view = await ended(own, job)
        assert (view.state, view.attempts) == (JobState.SUCCEEDED, 1)
        after = await own.jobs.defer(once, context.id, Note("catalog-after"))
        assert (await ended(own, after)).state is JobState.SUCCEEDED
        assert worker.beginnings == 1
        assert await counted(own, context, "catalog") == 1
    assert seen.labels.count("catalog") == 1


async def test_jobs_wait_out_a_cell_that_is_away_and_others_do_not(
    postgres_server: PostgresServer, restartable: EmbeddedPostgres, redis_server: RedisServer, tmp_path: Path
) -> None:
    second = PostgresServer("restartable", restartable.dsn(), "embedded")
    platform = new_platform(postgres_server, second, redis_server, tmp_path)
    async with standing(platform) as own, working(own):
        away, well = await Tenantry(own)(Tier.SHARED, cell=SECOND_CELL), await Tenantry(own)(Tier.SHARED)
        await asyncio.to_thread(restartable.stop)
        job = await own.jobs.defer(note, away.id, Note("cell-away"))
        view = await until_put_off(own, job)
        assert (view.last_code, view.failures) == ("cell-unavailable", 0)
        assert (await ended(own, await own.jobs.defer(note, well.id, Note("cell-well")))).state is JobState.SUCCEEDED
        await asyncio.to_thread(restartable.start)
        assert (await ended(own, job)).state is JobState.SUCCEEDED
        assert await counted(own, away, "cell-away") == 1


async def test_jobs_run_without_redis(
    postgres_server: PostgresServer,
    second_postgres_server: PostgresServer,
    mortal_redis: EmbeddedRedis,
    tmp_path: Path,
) -> None:
    redis = RedisServer(mortal_redis.url, "embedded")
    platform = new_platform(postgres_server, second_postgres_server, redis, tmp_path)
    async with standing(platform) as own, working(own):
        context = await Tenantry(own)(Tier.SHARED)
        await asyncio.to_thread(mortal_redis.stop)
        view = await ended(own, await own.jobs.defer(note, context.id, Note("no-redis")))
        assert view.state is JobState.SUCCEEDED
