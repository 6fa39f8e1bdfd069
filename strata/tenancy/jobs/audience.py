"""For whom scheduled jobs are queued: active tenants, by time zone."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from strata.platform.jobs.scheduler import DEFAULT_ZONE, Recipient
from strata.tenancy.catalog.tables import TenantRow
from strata.tenancy.jobs.queue import recipient_of
from strata.tenancy.model import TenantStatus
from strata.tenancy.settings.tables import TenantSettingsRow

# A tenant in a zone that nobody was in before has its first occurrence found this much later at most.
_KEEP_S = 30.0


class TenantAudience:
    def __init__(self, catalog: AsyncEngine) -> None:
        self._catalog = catalog
        self._zones: Sequence[str] = ()
        self._read_at = float("-inf")

    async def zones(self) -> Sequence[str]:
        if time.monotonic() - self._read_at > _KEEP_S:
            wanted = select(_zone()).select_from(TenantSettingsRow).distinct()
            async with self._catalog.connect() as connection:
                found = (await connection.scalars(wanted)).all()
            self._zones = sorted({DEFAULT_ZONE, *found})
            self._read_at = time.monotonic()
        return self._zones

    async def in_zone(self, connection: AsyncConnection, zone: str) -> Sequence[Recipient]:
        wanted = (
            select(TenantRow.id, TenantRow.plan)
            .outerjoin(TenantSettingsRow, TenantSettingsRow.tenant_id == TenantRow.id)
            .where(TenantRow.status == TenantStatus.ACTIVE, _zone() == zone)
            .order_by(TenantRow.id)
        )
        return [recipient_of(row.id, row.plan) for row in await connection.execute(wanted)]


def _zone() -> ColumnElement[str]:
    return func.coalesce(TenantSettingsRow.document["regional"]["time_zone"].astext, DEFAULT_ZONE)
