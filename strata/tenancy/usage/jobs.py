from __future__ import annotations

from datetime import UTC, datetime

from strata.platform.jobs.declaration import NoArguments, PlatformJob, platform_job
from strata.platform.jobs.schedules import Every
from strata.tenancy.usage.book import UsageBook


@platform_job("tenancy.purge-usage", schedule=Every(minutes=60))
async def purge_usage(job: PlatformJob, _arguments: NoArguments) -> None:
    await job.services.get(UsageBook).purge(datetime.now(UTC))


JOBS = (purge_usage,)
