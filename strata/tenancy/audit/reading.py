"""Reading a tenant's audit: by page, whole, and to check it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sqlalchemy import select

from strata.platform.paging import Page, Paging
from strata.tenancy.audit.chain import Anchor, ChainedEntry, Verification, Verifier
from strata.tenancy.audit.entries import Audit, EntryFilter, EntryOut
from strata.tenancy.audit.models import AuditEntryRow
from strata.tenancy.context import TenantContext
from strata.tenancy.session import TenantReadSession, Tenants

_AUDIT = Audit(AuditEntryRow, AuditEntryRow)


async def list_entries(session: TenantReadSession, paging: Paging, wanted: EntryFilter) -> Page[EntryOut]:
    """The newest first."""
    return await _AUDIT.page(session, paging, *_AUDIT.matching(wanted))


def every_entry(
    tenants: Tenants,
    context: TenantContext,
    wanted: EntryFilter = EntryFilter(),  # noqa: B008 - frozen
) -> AsyncIterator[ChainedEntry]:
    """The oldest first."""
    return _AUDIT.every(lambda: tenants.reading(context), *_AUDIT.matching(wanted))


async def verify(tenants: Tenants, context: TenantContext, anchors: list[Anchor]) -> Verification:
    verifier = Verifier(anchors)
    await verifier.take_all(every_entry(tenants, context))
    return verifier.result()


async def head(session: TenantReadSession) -> Anchor | None:
    row = (
        await session.execute(
            select(AuditEntryRow.sequence, AuditEntryRow.digest).order_by(AuditEntryRow.sequence.desc()).limit(1)
        )
    ).one_or_none()
    return None if row is None else Anchor(row.sequence, row.digest)
