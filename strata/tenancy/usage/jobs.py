from __future__ import annotations

from datetime import UTC, datetime, time

from strata.platform.jobs.declaration import NoArguments, PlatformJob, Queue, platform_job
from strata.platform.jobs.schedules import Daily, Every
from strata.tenancy.jobs.declaration import TenantJob, tenant_job
from strata.tenancy.usage.book import UsageBook, today
from strata.tenancy.usage.meters import Meter
from strata.tenancy.usage.storage import measure


@tenant_job("tenancy.measure-storage", queue=Queue.BULK, schedule=Daily(time(2, 20), spread_s=7200))
async def measure_storage(job: TenantJob, _arguments: NoArguments) -> None:
    """How much the tenant keeps. Whichever of a day's measurements is the highest counts, so it may run twice."""
    stored = await measure(job.tenants, job.context)
    await job.services.get(UsageBook).record_peaks(
        job.context.id, today(), {Meter.ROWS: stored.rows, Meter.STORAGE_BYTES: stored.size_bytes}
    )


@platform_job("tenancy.purge-usage", schedule=Every(minutes=60))
async def purge_usage(job: PlatformJob, _arguments: NoArguments) -> None:
    await job.services.get(UsageBook).purge(datetime.now(UTC))


JOBS = (measure_storage, purge_usage)
