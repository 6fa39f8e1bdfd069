"""The catalog's tenants: finding them, and changing what is said of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Select, delete, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from strata.platform.errors import ConflictError
from strata.tenancy.catalog.audit import record
from strata.tenancy.catalog.tables import CellRow, PlacementRow, TenantDocumentRow, TenantRow
from strata.tenancy.errors import UnknownTenantError
from strata.tenancy.model import TenantStatus, Tier
from strata.tenancy.settings.tables import TenantSettingsRow

Announce = Callable[[UUID], Awaitable[None]]
"""Tells every process that a tenant has changed; called after the commit."""

_SETTABLE = frozenset({TenantStatus.ACTIVE, TenantStatus.READ_ONLY, TenantStatus.SUSPENDED})


class TenantSummary(msgspec.Struct, frozen=True):
    id: UUID
    slug: str
    name: str
    status: TenantStatus
    status_reason: str | None
    plan: str
    plan_version: int
    region: str | None
    tier: Tier | None
    cell: str | None
    epoch: int | None
    created_at: datetime


def _summaries() -> Select[TenantRow, PlacementRow, str]:
    return (
        select(TenantRow, PlacementRow, CellRow.name)
        .outerjoin(PlacementRow, PlacementRow.tenant_id == TenantRow.id)
        .outerjoin(CellRow, CellRow.id == PlacementRow.cell_id)
    )


def _summary(tenant: TenantRow, placement: PlacementRow | None, cell: str | None) -> TenantSummary:
    return TenantSummary(
        id=tenant.id,
        slug=tenant.slug,
        name=tenant.name,
        status=TenantStatus(tenant.status),
        status_reason=tenant.status_reason,
        plan=tenant.plan,
        plan_version=tenant.plan_version,
        region=tenant.region,
        tier=Tier(placement.tier) if placement is not None else None,
        cell=cell,
        epoch=placement.epoch if placement is not None else None,
        created_at=tenant.created_at,
    )


class SettingCondition(msgspec.Struct, frozen=True):
    """That a setting has a value, set or by default."""

    path: tuple[str, ...]
    value: Any
    default: Any

    def sql(self) -> ColumnElement[bool]:
        document: Any = self.value
        for part in reversed(self.path):
            document = {part: document}
        found = TenantRow.id.in_(
            select(TenantSettingsRow.tenant_id).where(TenantSettingsRow.document.contains(document))
        )
        if self.value != self.default:
            return found
        has_own = select(TenantSettingsRow.tenant_id).where(TenantSettingsRow.document[self.path].is_not(None))
        return or_(found, TenantRow.id.not_in(has_own))


class TenantDirectory:
    def __init__(self, catalog: AsyncEngine, announce: Announce) -> None:
        self._sessions = async_sessionmaker(catalog, expire_on_commit=False)
        self._announce = announce

    async def get(self, slug: str) -> TenantSummary:
        """The tenant that has the slug now; UnknownTenantError."""
        async with self._sessions() as session:
            rows = await session.execute(
                _summaries().where(TenantRow.slug == slug, TenantRow.status != TenantStatus.CLOSED)
            )
            row = rows.one_or_none()
        if row is None:
            raise UnknownTenantError(slug)
        return _summary(*row)

    async def find(
        self,
        *,
        search: str | None = None,
        status: TenantStatus | None = None,
        after: str | None = None,
        limit: int = 50,
        where: Sequence[SettingCondition] = (),
    ) -> list[TenantSummary]:
        """Tenants by slug, at most `limit` after the slug `after`; closed ones only when asked for by status."""
        query = _summaries().where(*(each.sql() for each in where)).order_by(TenantRow.slug, TenantRow.id).limit(limit)
        if status is None:
            query = query.where(TenantRow.status != TenantStatus.CLOSED)
        else:
            query = query.where(TenantRow.status == status)
        if after is not None:
            query = query.where(TenantRow.slug > after)
        if search:
            query = query.where(
                or_(TenantRow.slug.contains(search, autoescape=True), TenantRow.name.icontains(search, autoescape=True))
            )
        async with self._sessions() as session:
            return [_summary(*row) for row in (await session.execute(query))]

    async def set_status(self, slug: str, status: TenantStatus, reason: str | None, actor: str) -> TenantSummary:
        """Activate, hold read-only or suspend a tenant; seen by every process at once."""
        if status not in _SETTABLE:
            message = f"A tenant is not made {status.value} by hand."
            raise ConflictError(message)
        async with self._sessions.begin() as session:
            row = await locked_tenant(session, slug)
            row.status, row.status_reason = status, reason
            record(session, actor, f"tenant.{status.value}", slug, tenant_id=row.id, detail={"reason": reason})
        await self._announce(row.id)
        return await self.get(slug)

    async def set_document(self, slug: str, facet: str, document: dict[str, object] | None, actor: str) -> None:
        """Replace what a facet keeps for a tenant; None brings its defaults back. The caller has validated it."""
        async with self._sessions.begin() as session:
            row = await locked_tenant(session, slug)
            if document is None:
                await session.execute(
                    delete(TenantDocumentRow).where(
                        TenantDocumentRow.tenant_id == row.id, TenantDocumentRow.facet == facet
                    )
                )
            else:
                await session.execute(
                    insert(TenantDocumentRow)
                    .values(tenant_id=row.id, facet=facet, document=document)
                    .on_conflict_do_update(index_elements=["tenant_id", "facet"], set_={"document": document})
                )
            record(session, actor, f"tenant.{facet}", slug, tenant_id=row.id, detail={"document": document})
        await self._announce(row.id)


async def locked_tenant(session: AsyncSession, slug: str) -> TenantRow:
    """For a change of it, until the end of the transaction; UnknownTenantError, or ConflictError while it comes or goes."""
    row = await session.scalar(
        select(TenantRow).where(TenantRow.slug == slug, TenantRow.status != TenantStatus.CLOSED).with_for_update()
    )
    if row is None:
        raise UnknownTenantError(slug)
    if TenantStatus(row.status) not in _SETTABLE:
        message = f"Tenant «{slug}» is {row.status}: it cannot be changed now."
        raise ConflictError(message)
    return row
