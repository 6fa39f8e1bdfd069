"""Host names of a tenant's own. Staff record them here; proof of ownership and certificates are white-label's business."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from strata.platform.errors import ConflictError, NotFoundError
from strata.tenancy.catalog.audit import record
from strata.tenancy.catalog.tables import CertificateStatus, DomainRow, TenantRow
from strata.tenancy.catalog.tenants import Announce
from strata.tenancy.errors import UnknownTenantError
from strata.tenancy.model import TenantStatus


class Domain(msgspec.Struct, frozen=True):
    hostname: str
    verified_at: datetime | None
    certificate_status: CertificateStatus


class Domains:
    def __init__(self, catalog: AsyncEngine, announce: Announce) -> None:
        self._sessions = async_sessionmaker(catalog, expire_on_commit=False)
        self._announce = announce

    async def add(self, slug: str, hostname: str, actor: str) -> Domain:
        """Route `hostname` (lower case, A-labels) to the tenant from now on.

        Staff vouch for ownership and for a certificate: the name counts as verified and its certificate as active.
        Said again, it changes nothing.
        """
        async with self._sessions.begin() as session:
            tenant_id = await _tenant_id(session, slug)
            new = insert(DomainRow).values(
                tenant_id=tenant_id,
                hostname=hostname,
                verified_at=datetime.now(UTC),
                certificate_status=CertificateStatus.ACTIVE,
            )
            unless_there = new.on_conflict_do_nothing(index_elements=[DomainRow.hostname])
            if await session.scalar(unless_there.returning(DomainRow.id)) is not None:
                record(session, actor, "domain.add", hostname, tenant_id=tenant_id)
            row = await session.scalar(
                select(DomainRow).where(DomainRow.hostname == hostname, DomainRow.tenant_id == tenant_id)
            )
            if row is None:
                message = f"The domain «{hostname}» is routed already; remove it from its tenant first."
                raise ConflictError(message)
        await self._announce(tenant_id)
        return _domain(row)

    async def list(self, slug: str) -> list[Domain]:
        async with self._sessions() as session:
            rows = await session.scalars(
                select(DomainRow)
                .where(DomainRow.tenant_id == await _tenant_id(session, slug))
                .order_by(DomainRow.hostname)
            )
            return [_domain(row) for row in rows]

    async def remove(self, slug: str, hostname: str, actor: str) -> None:
        async with self._sessions.begin() as session:
            tenant_id = await _tenant_id(session, slug)
            row = await session.scalar(
                select(DomainRow).where(DomainRow.tenant_id == tenant_id, DomainRow.hostname == hostname)
            )
            if row is None:
                message = f"Tenant «{slug}» has no domain «{hostname}»."
                raise NotFoundError(message)
            await session.delete(row)
            record(session, actor, "domain.remove", hostname, tenant_id=tenant_id)
        await self._announce(tenant_id)


def _domain(row: DomainRow) -> Domain:
    return Domain(row.hostname, row.verified_at, CertificateStatus(row.certificate_status))


async def _tenant_id(session: AsyncSession, slug: str) -> UUID:
    found: UUID | None = await session.scalar(
        select(TenantRow.id).where(TenantRow.slug == slug, TenantRow.status != TenantStatus.CLOSED)
    )
    if found is None:
        raise UnknownTenantError(slug)
    return found
