"""One cell that was failed over: what it says beside what the catalog says, and the transaction that brings it to that."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from sqlalchemy import Uuid, and_, any_, func, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from strata.migrator.approval.findings import Behind, Fence, Finding, Known, Standing, behind, compare
from strata.platform.database.administration import administrator
from strata.platform.database.names import quoted
from strata.tenancy.catalog.tables import AuditAnchorRow, CellRow, ClaimRow, PlacementRow, TenantRow
from strata.tenancy.events.tables import UsageMarkRow
from strata.tenancy.model import FenceState, Holder, TenantStatus
from strata.tenancy.provisioning.exclusion import tenant_subject

if TYPE_CHECKING:
    import asyncpg

    from strata.migrator.approval.promoted import PromotedCell

GAP = 2**31
"""Positions of the outbox that are passed over. More than a standby that anybody promotes was behind (at 10,000 events a
second, a day); and the floors of writers, which are kept modulo this, compare across it as if it were not there."""

_FENCES = "SELECT tenant_id, epoch, state, schema_name FROM strata.fence"
# Compared with what was read: a tenant that is being made or deleted meanwhile has its own word.
_WRITE = """
UPDATE strata.fence SET epoch = $4, state = $5, schema_name = $6
WHERE tenant_id = $1 AND epoch = $2 AND state = $3
"""
_POSITION = "SELECT last_value FROM strata.outbox_position"
_SKIP = "SELECT setval('strata.outbox_position', greatest((SELECT last_value FROM strata.outbox_position), $1) + $2)"
_APPROVE = "UPDATE strata.cell SET timeline = $1"
_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE to_regclass(quote_ident(nspname) || '.audit_entry') IS NOT NULL"


class Reconciliation(msgspec.Struct, frozen=True):
    """What one cell's approval comes to."""

    findings: list[Finding]
    behind: list[Behind]
    position: int
    """The last that the outbox had given out."""
    counted_to: int
    """The greatest of it that the catalog has counted."""

    @property
    def changes(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.becomes is not None]


async def compared(catalog: AsyncEngine, cell: PromotedCell, approval: str) -> Reconciliation:
    """`approval`: as what it claims tenants itself. Reads the cell first and the catalog after it: whoever has a fence was in the catalog before."""
    async with administrator(cell.url) as admin:
        fences = await _fences(admin)
        position = await admin.fetchval(_POSITION)
        tenants = await _known(catalog, cell.row.id, fences)
        findings = compare(cell.row.name, tenants, fences, await _claims(catalog, approval))
        served = [
            tenants[finding.tenant_id]
            for finding in findings
            if finding.standing in {Standing.SERVED, Standing.REOPENED, Standing.MOVING}
            and tenants[finding.tenant_id].cell == cell.row.name
        ]
        audited = await _audited(admin, served)
    late = [behind(known, cell.row.name, position, audited.get(known.id, 0)) for known in served]
    counted_to = max((known.counted_to for known in tenants.values() if known.cell == cell.row.name), default=0)
    return Reconciliation(findings, [each for each in late if each is not None], position, counted_to)


async def reconcile(cell: PromotedCell, found: Reconciliation) -> None:
    """All of it or nothing, the timeline last. A run that died behind it finds the cell approved, and passes nothing over."""
    async with administrator(cell.url) as admin, admin.transaction():
        for finding in found.changes:
            was, becomes = finding.was, finding.becomes
            assert was is not None  # noqa: S101 - a change has both
            assert becomes is not None  # noqa: S101
            await admin.execute(
                _WRITE,
                finding.tenant_id,
                was.epoch,
                was.state.value,
                becomes.epoch,
                becomes.state.value,
                becomes.schema_name,
            )
        if not cell.approved:
            await admin.execute(_SKIP, found.counted_to, GAP)
            await admin.execute(_APPROVE, cell.timeline)


async def _fences(admin: asyncpg.Connection) -> dict[UUID, Fence]:
    return {
        UUID(int=row["tenant_id"].int): Fence(row["epoch"], FenceState(row["state"]), row["schema_name"])
        for row in await admin.fetch(_FENCES)
    }


async def _known(catalog: AsyncEngine, cell_id: UUID, fenced: Collection[UUID]) -> dict[UUID, Known]:
    """Tenants that live in the cell, and those that have a fence there."""
    named = literal(list(fenced), ARRAY(Uuid))
    anchored = (
        select(func.coalesce(func.max(AuditAnchorRow.sequence), 0))
        .where(AuditAnchorRow.tenant_id == TenantRow.id)
        .scalar_subquery()
    )
    query = (
        select(
            TenantRow.id,
            TenantRow.slug,
            TenantRow.status,
            CellRow.name,
            PlacementRow.schema_name,
            func.coalesce(PlacementRow.epoch, 0),
            func.coalesce(UsageMarkRow.position, 0),
            anchored,
        )
        .outerjoin(PlacementRow, PlacementRow.tenant_id == TenantRow.id)
        .outerjoin(CellRow, CellRow.id == PlacementRow.cell_id)
        .outerjoin(UsageMarkRow, and_(UsageMarkRow.tenant_id == TenantRow.id, UsageMarkRow.epoch == PlacementRow.epoch))
        .where(or_(PlacementRow.cell_id == cell_id, TenantRow.id == any_(named)))
    )
    async with AsyncSession(catalog) as session:
        return {
            row[0]: Known(row[0], row[1], TenantStatus(row[2]), *row[3:])
            for row in (await session.execute(query)).all()
        }


async def _claims(catalog: AsyncEngine, approval: str) -> dict[UUID, tuple[Holder, str]]:
    """Tenants that a move or a removal has, but for what this approval has claimed in a run that died."""
    prefix = tenant_subject(UUID(int=0)).removesuffix(str(UUID(int=0)))
    query = select(ClaimRow.subject, ClaimRow.holder, ClaimRow.reference).where(ClaimRow.subject.startswith(prefix))
    async with AsyncSession(catalog) as session:
        return {
            UUID(subject.removeprefix(prefix)): (Holder(holder), reference)
            for subject, holder, reference in (await session.execute(query)).all()
            if reference != approval
        }


async def _audited(admin: asyncpg.Connection, tenants: Collection[Known]) -> Mapping[UUID, int]:
    """How many entries their audit has here, of those that the catalog has an anchor of."""
    counted: dict[UUID, int] = {}
    schemas = {row["nspname"] for row in await admin.fetch(_SCHEMAS)}
    async with admin.transaction(readonly=True):
        await admin.execute("SELECT set_config('row_security', 'off', true)")
        for known in tenants:
            if known.audited_to and known.schema_name is not None and known.schema_name in schemas:
                counted[known.id] = await admin.fetchval(
                    f"SELECT coalesce(max(sequence), 0) FROM {quoted(known.schema_name)}.audit_entry WHERE tenant_id = $1",  # noqa: S608 - name from the catalog, quoted
                    known.id,
                )
    return counted
