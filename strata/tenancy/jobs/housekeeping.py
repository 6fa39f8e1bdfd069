"""The platform's own standing jobs."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import structlog
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.platform.jobs.declaration import NoArguments, PlatformJob, platform_job
from strata.platform.jobs.schedules import Daily, Every
from strata.platform.jobs.store import JobState, JobStore
from strata.platform.settings import JobSettings
from strata.tenancy.audit.reading import head
from strata.tenancy.catalog.audit_chain import anchor
from strata.tenancy.entitlements.desk import EntitlementDesk
from strata.tenancy.flags.desk import FlagDesk
from strata.tenancy.jobs.declaration import TenantJob, tenant_job
from strata.tenancy.jobs.models import JobRun
from strata.tenancy.provisioning.tenants import Provisioning

log = structlog.get_logger(__name__)

MARKS_KEPT = timedelta(days=90)
"""Longer than a dead letter can be retried (settings.jobs.keep_dead_days), or its work would be done again."""


@platform_job("tenancy.sweep", schedule=Every(minutes=1 / 6))
async def sweep(job: PlatformJob, _arguments: NoArguments) -> None:
    """Finish or undo what died: tenants half made, tenants half deleted."""
    await job.services.get(Provisioning).sweep()


@platform_job("tenancy.keep-spares", schedule=Every(minutes=1 / 6))
async def keep_spares(job: PlatformJob, _arguments: NoArguments) -> None:
    """Make schemas for tenants to come, so that they need not wait for their tables."""
    await job.services.get(Provisioning).stock.refill()


@platform_job("tenancy.end-entitlements", schedule=Every(minutes=1 / 6))
async def end_entitlements(job: PlatformJob, _arguments: NoArguments) -> None:
    """See to it that what was given for a time ends in time: contexts made before would show it for minutes."""
    while await job.services.get(EntitlementDesk).end_expired():
        pass
    while await job.services.get(FlagDesk).end_expired_overrides():
        pass


@platform_job("platform.purge-jobs", schedule=Every(minutes=10))
async def purge_jobs(job: PlatformJob, _arguments: NoArguments) -> None:
    """Forget jobs that are over: those that succeeded soon, dead letters once nobody will retry them."""
    store, settings = job.services.get(JobStore), job.services.get(JobSettings)
    now = datetime.now(UTC)
    for states, before in (
        ((JobState.SUCCEEDED,), now - timedelta(hours=settings.keep_done_h)),
        ((JobState.FAILED, JobState.CANCELLED), now - timedelta(days=settings.keep_dead_days)),
    ):
        forgotten = 0
        while batch := await store.purge(states, before):
            forgotten += batch
        if forgotten:
            log.info("jobs.purged", states=states, jobs=forgotten)


@tenant_job("tenancy.forget-job-runs", schedule=Daily(time(3, 40), spread_s=3600))
async def forget_job_runs(job: TenantJob, _arguments: NoArguments) -> None:
    async with job.tenants.transaction(job.context) as session:
        await session.execute(delete(JobRun).where(JobRun.done_at < datetime.now(UTC) - MARKS_KEPT))


@tenant_job("tenancy.anchor-audit", schedule=Daily(time(2, 20), spread_s=3600))
async def anchor_audit(job: TenantJob, _arguments: NoArguments) -> None:
    """Remember in the catalog how the tenant's audit stands: entries cut off its end since are missed."""
    async with job.tenants.reading(job.context) as session:
        newest = await head(session)
    if newest is not None:
        await anchor(job.services.get(AsyncEngine), job.context.id, newest)


JOBS = (sweep, keep_spares, end_entitlements, purge_jobs, forget_job_runs, anchor_audit)
