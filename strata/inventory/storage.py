"""How much a tenant keeps, and whether another file has room: measured each night, waiting files counted as they come.

The measurement is an estimate (tenancy/usage/storage.py), so for rows the limit is none to the byte. Files are admitted one
after the other, under a lock on the counter: two of which each has room alone do not both get in.
"""

from __future__ import annotations

from datetime import time

from sqlalchemy import func, select

from strata.inventory import quotas
from strata.inventory.imports.models import ImportChunk
from strata.inventory.quotas import MB, Quota
from strata.platform.errors import ForbiddenError
from strata.platform.jobs.declaration import NoArguments, Queue
from strata.platform.jobs.schedules import Daily
from strata.tenancy.jobs import TenantJob, tenant_job
from strata.tenancy.session import TenantSession
from strata.tenancy.usage.book import UsageBook, today
from strata.tenancy.usage.meters import Meter
from strata.tenancy.usage.storage import measure


class StorageFullError(ForbiddenError):
    code = "storage-full"
    title = "No room left in the plan"

    def __init__(self, *, limit_mb: int, used_bytes: int, size_bytes: int) -> None:
        super().__init__(
            f"Your plan allows {limit_mb} MB, {used_bytes / MB:.1f} MB are in use, and this file needs "
            f"{size_bytes / MB:.1f} MB: wait for imports that are under way, or move to a larger plan.",
            extra={"quota": "storage_mb", "limit": limit_mb, "used_bytes": used_bytes, "size_bytes": size_bytes},
        )


async def admit_file(session: TenantSession, size_bytes: int, limit_mb: int | None) -> None:
    """Raise StorageFullError where the file does not fit; it is kept, or not, in the same transaction."""
    if limit_mb is None:
        return
    used = await quotas.locked(session, Quota.STORAGE) + await _waiting(session)
    if used + size_bytes > limit_mb * MB:
        raise StorageFullError(limit_mb=limit_mb, used_bytes=used, size_bytes=size_bytes)


async def _waiting(session: TenantSession) -> int:
    """Of files that are still to be imported. PostgreSQL knows their lengths without reading them."""
    return await session.scalar(select(func.coalesce(func.sum(func.octet_length(ImportChunk.content)), 0))) or 0


@tenant_job("tenancy.measure-storage", queue=Queue.BULK, schedule=Daily(time(2, 20), spread_s=7200))
async def measure_storage(job: TenantJob, _arguments: NoArguments) -> None:
    """How much the tenant keeps. Whichever of a day's measurements is the highest counts, so it may run twice."""
    stored = await measure(job.tenants, job.context)
    await job.services.get(UsageBook).record_peaks(
        job.context.id, today(), {Meter.ROWS: stored.rows, Meter.STORAGE_BYTES: stored.size_bytes}
    )
    # Files that wait are counted as long as they do, by their own length.
    kept = stored.size_bytes - stored.sizes.get(ImportChunk.__tablename__, 0)
    async with job.tenants.transaction(job.context) as session:
        await quotas.measured(session, Quota.STORAGE, kept)
