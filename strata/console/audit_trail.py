"""What was done to a tenant, newest first."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.platform.paging import Keyset, Page, Paging
from strata.tenancy.catalog.tables import AuditRow

_ORDER = Keyset(AuditRow.at, AuditRow.id, descending=True)
_COLUMNS = (AuditRow.at, AuditRow.id, AuditRow.actor, AuditRow.action, AuditRow.detail)


class AuditEntry(msgspec.Struct, frozen=True):
    at: datetime
    id: UUID
    actor: str
    action: str
    detail: dict[str, Any]


async def history_of(catalog: AsyncEngine, tenant_id: UUID, paging: Paging) -> Page[AuditEntry]:
    statement = _ORDER.select_page(select(*_COLUMNS).where(AuditRow.tenant_id == tenant_id), paging)
    async with catalog.connect() as connection:
        rows = (await connection.execute(statement)).all()
    return _ORDER.page(rows, paging, item=lambda row: AuditEntry(*row), position=lambda row: (row.at, row.id))
