"""Reading the catalog's audit in the order of its chain, and the anchors that it keeps of the tenants' chains."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.platform.paging import Page, Paging
from strata.tenancy.audit.chain import Anchor, ChainedEntry, Verification, Verifier
from strata.tenancy.audit.entries import Audit, EntryFilter, EntryOut
from strata.tenancy.catalog.tables import AuditAnchorRow, AuditLinkRow, AuditRow

_AUDIT = Audit(AuditRow, AuditLinkRow, AuditRow.id == AuditLinkRow.entry_id)


async def list_entries(
    catalog: AsyncEngine, paging: Paging, wanted: EntryFilter, *, tenant_id: UUID | None = None
) -> Page[EntryOut]:
    """The newest first; with `tenant_id`, only what was done to this tenant."""
    of_tenant = [] if tenant_id is None else [AuditRow.tenant_id == tenant_id]
    async with catalog.connect() as connection:
        return await _AUDIT.page(connection, paging, *of_tenant, *_AUDIT.matching(wanted))


def every_entry(catalog: AsyncEngine) -> AsyncIterator[ChainedEntry]:
    """The oldest first."""
    return _AUDIT.every(catalog.connect)


async def verify(catalog: AsyncEngine) -> Verification:
    verifier = Verifier()
    await verifier.take_all(every_entry(catalog))
    unlinked = select(func.count()).where(~select(AuditLinkRow).where(AuditLinkRow.entry_id == AuditRow.id).exists())
    async with catalog.connect() as connection:
        strangers = await connection.scalar(unlinked.select_from(AuditRow))
    return verifier.result(strangers=strangers or 0)


async def anchors_of(catalog: AsyncEngine, tenant_id: UUID) -> list[Anchor]:
    statement = select(AuditAnchorRow.sequence, AuditAnchorRow.digest).where(AuditAnchorRow.tenant_id == tenant_id)
    async with catalog.connect() as connection:
        return [Anchor(*row) for row in await connection.execute(statement)]


async def anchor(catalog: AsyncEngine, tenant_id: UUID, head: Anchor) -> None:
    """Remember how the tenant's chain stands. The first word counts: an anchor is never replaced."""
    row = {"tenant_id": tenant_id, "sequence": head.sequence, "digest": head.digest}
    async with catalog.begin() as connection:
        await connection.execute(insert(AuditAnchorRow).values(row).on_conflict_do_nothing())
