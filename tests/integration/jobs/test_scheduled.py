"""Scheduled jobs: for every active tenant, in its own time zone, once, whoever looks; and the first real ones."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, time, timedelta

import pytest
from sqlalchemy import text

from strata.inventory.jobs import ANSWERS_KEPT, purge_idempotency
from strata.platform.jobs.declaration import JobRegistry, NoArguments, PlatformJob, platform_job
from strata.platform.jobs.scheduler import Scheduler
from strata.platform.jobs.schedules import Daily, Every
from strata.platform.jobs.store import JobFilter, JobState
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.jobs import TenantJob, tenant_job
from strata.tenancy.jobs.audience import TenantAudience
from strata.tenancy.jobs.housekeeping import purge_jobs, sweep
from strata.tenancy.model import TenantStatus, Tier
from tests.builders.jobs import SOON_S, Note, counted, ended, once, working
from tests.builders.platform import ACTOR, Tenantry
from tests.builders.settings import settle


@tenant_job("tests.nightly", schedule=Daily(time(3, 10)))
async def nightly(job: TenantJob, _arguments: NoArguments) -> None: ...


@platform_job("tests.every-hour", schedule=Every(minutes=60))
async def every_hour(job: PlatformJob, _arguments: NoArguments) -> None: ...


@pytest.fixture
async def clean_marks(runtime: Runtime) -> None:
    async with runtime.catalog_engine.begin() as connection:
        await connection.execute(text("DELETE FROM jobs.schedule_mark WHERE schedule LIKE 'tests.%'"))
        await connection.execute(text("DELETE FROM jobs.procrastinate_jobs WHERE task_name LIKE 'tests.%'"))


def scheduler(runtime: Runtime) -> Scheduler:
    registry = JobRegistry((nightly, every_hour))
    audience = TenantAudience(runtime.catalog_engine)
    return Scheduler(runtime.catalog_engine, runtime.jobs.store, registry, audience, tick_s=60)


async def owners_of(runtime: Runtime, name: str) -> list[str]:
    return [job.owner for job in await runtime.jobs.store.find(JobFilter(name=name, limit=1000))]


async def served(runtime: Runtime, *tenants: TenantContext) -> list[TenantContext]:
    """Which of them the nightly job was queued for, and how often; other tests' tenants have time zones too."""
    owners = await owners_of(runtime, nightly.name)
    return [tenant for tenant in tenants for _ in range(owners.count(str(tenant.id)))]


async def live_in(runtime: Runtime, slug: str, zone: str) -> None:
    await settle(runtime, slug, {"regional": {"time_zone": zone}})


@pytest.mark.usefixtures("clean_marks")
async def test_each_tenant_is_served_at_its_own_hour_once(runtime: Runtime, tenant_on: Tenantry) -> None:
    tokyo, berlin = await tenant_on(Tier.SHARED), await tenant_on(Tier.SCHEMA)
    await live_in(runtime, tokyo.slug, "Asia/Tokyo")
    await live_in(runtime, berlin.slug, "Europe/Berlin")
    one, other = scheduler(runtime), scheduler(runtime)
    evening = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)  # 03:00 in Tokyo
    await one.tick(evening)
    assert await served(runtime, tokyo, berlin) == [], "a new schedule has missed nothing"

    later = evening + timedelta(minutes=15)
    await asyncio.gather(one.tick(later), other.tick(later))
    assert await served(runtime, tokyo, berlin) == [tokyo]
    at_night = datetime(2026, 11, 23, 2, 15, tzinfo=UTC)  # 03:15 in Berlin
    await one.tick(at_night)
    await other.tick(at_night)
    assert await served(runtime, tokyo, berlin) == [tokyo, berlin]


@pytest.mark.usefixtures("clean_marks")
async def test_whoever_changes_zone_has_had_the_day(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    await live_in(runtime, tenant.slug, "Asia/Tokyo")
    await scheduler(runtime).tick(datetime(2026, 11, 22, 17, 0, tzinfo=UTC))
    await scheduler(runtime).tick(datetime(2026, 11, 22, 18, 15, tzinfo=UTC))
    await live_in(runtime, tenant.slug, "Asia/Kolkata")
    await scheduler(runtime).tick(datetime(2026, 11, 22, 20, 0, tzinfo=UTC))
    await scheduler(runtime).tick(datetime(2026, 11, 22, 22, 0, tzinfo=UTC))  # 03:30 in Kolkata, the same date
    assert await served(runtime, tenant) == [tenant]


@pytest.mark.usefixtures("clean_marks")
async def test_only_active_tenants_are_served(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    await live_in(runtime, tenant.slug, "Pacific/Auckland")
    await scheduler(runtime).tick(datetime(2026, 11, 22, 13, 0, tzinfo=UTC))
    await runtime.directory.set_status(tenant.slug, TenantStatus.SUSPENDED, "invoice", ACTOR)
    await scheduler(runtime).tick(datetime(2026, 11, 22, 14, 30, tzinfo=UTC))
    assert await served(runtime, tenant) == []


@pytest.mark.usefixtures("clean_marks")
async def test_the_platform_s_jobs_are_queued_once_however_many_workers_look(runtime: Runtime) -> None:
    now = datetime(2026, 11, 22, 13, 30, tzinfo=UTC)
    await asyncio.gather(*(scheduler(runtime).tick(now) for _ in range(4)))
    assert await owners_of(runtime, "tests.every-hour") == [""]
    # The first still waits: the next hour's is another piece of work, and is queued too.
    await scheduler(runtime).tick(now + timedelta(hours=1))
    assert await owners_of(runtime, "tests.every-hour") == ["", ""]


@pytest.mark.parametrize("tier", list(Tier))
async def test_old_answers_are_purged_in_the_tenant_alone(runtime: Runtime, tenant_on: Tenantry, tier: Tier) -> None:
    tenant, neighbour = await tenant_on(tier), await tenant_on(tier)
    put = text("INSERT INTO idempotency (key, request_hash, created_at) VALUES (:key, '', :at)")
    now = datetime.now(UTC)
    for context in (tenant, neighbour):
        async with runtime.tenants.transaction(context) as session:
            await session.execute(put, {"key": "old", "at": now - ANSWERS_KEPT - timedelta(hours=1)})
            await session.execute(put, {"key": "new", "at": now})
    async with working(runtime, jobs=(purge_idempotency,)):
        view = await ended(runtime, await runtime.jobs.defer(purge_idempotency, tenant.id, NoArguments()))
    assert view.state is JobState.SUCCEEDED
    for context, kept in ((tenant, ["new"]), (neighbour, ["new", "old"])):
        async with runtime.tenants.reading(context) as session:
            assert list(await session.scalars(text("SELECT key FROM idempotency ORDER BY key"))) == kept


async def test_jobs_that_are_over_are_forgotten_in_time(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    async with working(runtime):
        done = [await runtime.jobs.defer(once, tenant.id, Note(f"purge-{n}")) for n in range(2)]
        for job in done:
            await ended(runtime, job)
    age = text("UPDATE jobs.procrastinate_events SET at = at - interval '25 hours' WHERE job_id = :id")
    async with runtime.catalog_engine.begin() as connection:
        await connection.execute(age, {"id": done[0]})
    async with working(runtime, jobs=(purge_jobs,)):
        await ended(runtime, await runtime.jobs.defer_platform(purge_jobs, NoArguments()))
    assert await runtime.jobs.status(done[0]) is None
    assert await runtime.jobs.status(done[1]) is not None
    assert await counted(runtime, tenant, "purge-0") == 1


async def test_what_died_half_way_is_swept_by_a_job(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SCHEMA)
    async with runtime.catalog_engine.begin() as connection:
        await connection.execute(text("UPDATE tenant SET status = 'closing' WHERE id = :id").bindparams(id=tenant.id))
    status = text("SELECT status FROM tenant WHERE id = :id").bindparams(id=tenant.id)
    async with working(runtime, jobs=(sweep,)):
        await ended(runtime, await runtime.jobs.defer_platform(sweep, NoArguments()))
        # The scheduled one may have come first, and holds the tenant while this one passes it by.
        async with (
            asyncio.timeout(SOON_S),
            runtime.catalog_engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection,
        ):
            while await connection.scalar(status) != TenantStatus.CLOSED:  # noqa: ASYNC110 - another job
                await asyncio.sleep(0.02)
