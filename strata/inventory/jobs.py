"""The inventory's jobs."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import structlog
from sqlalchemy import text

from strata.inventory.imports.jobs import JOBS as IMPORT_JOBS
from strata.inventory.storage import measure_storage
from strata.platform.jobs.declaration import NoArguments
from strata.platform.jobs.schedules import Daily
from strata.tenancy.jobs import TenantJob, tenant_job

log = structlog.get_logger(__name__)

ANSWERS_KEPT = timedelta(days=7)
_AT_ONCE = 5000

_PURGE = text(
    """
    WITH gone AS (
        DELETE FROM idempotency WHERE tenant_id = :tenant AND id IN (
            SELECT id FROM idempotency WHERE tenant_id = :tenant AND created_at < :before
            ORDER BY created_at LIMIT :most)
        RETURNING 1
    )
    SELECT count(*) FROM gone
    """
)


@tenant_job("inventory.purge-idempotency", schedule=Daily(time(3, 10), spread_s=3600))
async def purge_idempotency(job: TenantJob, _arguments: NoArguments) -> None:
    """Forget answers kept for requests that nobody will repeat any more. In batches: no lock is held for long."""
    before = datetime.now(UTC) - ANSWERS_KEPT
    number = 0
    while True:
        async with job.tenants.transaction(job.context) as session:
            # A night is done once: what a worker that died had finished is not gone through again.
            if not await job.first_time(session, key=f"batch-{number}"):
                number += 1
                continue
            purged = await session.scalar(_PURGE, {"tenant": job.context.id, "before": before, "most": _AT_ONCE})
        if not purged or purged < _AT_ONCE:
            return
        number += 1


JOBS = (purge_idempotency, measure_storage, *IMPORT_JOBS)
