"""What tenants had left on a server and is back with its standby: their old homes, and databases of deleted ones.

Removed only on the catalog's positive word: the tenant was deleted, or it lives elsewhere and is let in there. Where it is
not, this may be the only copy that there is.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from strata.migrator import fence
from strata.migrator.approval.findings import Finding
from strata.platform.database.administration import administrator
from strata.platform.database.failures import NO_ANSWER
from strata.platform.errors import StrataError
from strata.tenancy.catalog.audit import record
from strata.tenancy.catalog.tables import CellRow, PlacementRow, ServerRow, TenantRow
from strata.tenancy.model import SHARED_SCHEMA, Holder, TenantStatus, Tier
from strata.tenancy.provisioning.exclusion import TenantBusyError, claim, release, tenant_subject
from strata.tenancy.provisioning.homes import Home, Site

if TYPE_CHECKING:
    from strata.migrator.approval.promoted import PromotedCell
    from strata.tenancy.catalog.registry import Registry
    from strata.tenancy.provisioning.cells import CellBuilder


def claimed_as(server: str) -> str:
    """The reference under which the approval of a server claims the tenants whose old homes it removes."""
    return f"approval of {server}"


class Leftover(msgspec.Struct, frozen=True):
    slug: str
    where: str
    """A cell, or a database that is a cell no more."""
    removed: bool
    sentence: str = ""


class Leftovers:
    def __init__(
        self, catalog: AsyncEngine, registry: Registry, cells: CellBuilder, homes: dict[Tier, Home], role_prefix: str
    ) -> None:
        self._catalog = catalog
        self._registry = registry
        self._cells = cells
        self._homes = homes
        self._dedicated = re.compile(rf"{re.escape(role_prefix.replace('-', '_'))}_dedicated_([0-9a-f]{{32}})")

    async def clear(
        self, server: ServerRow, cell: PromotedCell, findings: list[Finding], actor: str
    ) -> AsyncIterator[Leftover]:
        for finding in findings:
            if not finding.clear or finding.was is None:
                continue
            if (why := await self._may_not_go(finding.tenant_id)) is not None:
                yield Leftover(finding.slug, cell.row.name, removed=False, sentence=why)
                continue
            try:
                await self._remove(server, cell, finding.tenant_id, finding.was.schema_name)
            except TenantBusyError as error:
                yield Leftover(finding.slug, cell.row.name, removed=False, sentence=error.detail)
                continue
            await self._say(actor, finding.slug, finding.tenant_id, cell.row.name)
            yield Leftover(finding.slug, cell.row.name, removed=True)

    async def _remove(self, server: ServerRow, cell: PromotedCell, tenant_id: UUID, schema: str) -> None:
        tier = Tier.SHARED if schema == SHARED_SCHEMA else Tier.SCHEMA
        placement = PlacementRow(tenant_id=tenant_id, cell_id=cell.row.id, tier=tier, schema_name=schema)
        url = await self._registry.admin_url(server)
        reference = claimed_as(server.name)
        async with AsyncSession(self._catalog) as session, session.begin():
            # A move could bring the tenant back here meanwhile. Left behind by a death, it is the next run's.
            await claim(session, Holder.REMOVAL, reference, [tenant_subject(tenant_id)])
        await self._homes[tier].remove(Site(tenant_id, placement, cell.row, server, url, cell.url))
        async with AsyncSession(self._catalog) as session, session.begin():
            await release(session, Holder.REMOVAL, reference, [tenant_subject(tenant_id)])

    async def clear_databases(self, server: ServerRow, actor: str, *, dry_run: bool) -> AsyncIterator[Leftover]:
        """Databases of dedicated tenants that the catalog does not have as cells any more."""
        url = await self._registry.admin_url(server)
        async with administrator(url) as admin:
            there = [row["datname"] for row in await admin.fetch("SELECT datname FROM pg_database")]
        for database in there:
            match = self._dedicated.fullmatch(database)
            if match is None or (slug := await self._slug_without_cell(UUID(match[1]), database)) is None:
                continue
            why = await self._may_not_go(UUID(match[1]))
            if why is None and not dry_run:
                await self._cells.drop_database(url, database)
                await self._say(actor, slug, UUID(match[1]), database)
            yield Leftover(slug, database, removed=why is None, sentence=why or "")

    async def release(self, server: ServerRow) -> None:
        """What a run that died between a removal and its end still claims."""
        async with AsyncSession(self._catalog) as session, session.begin():
            await release(session, Holder.REMOVAL, claimed_as(server.name))

    async def _slug_without_cell(self, tenant_id: UUID, database: str) -> str | None:
        """None: it is a cell's, or the catalog knows no such tenant."""
        async with AsyncSession(self._catalog) as session:
            if await session.scalar(select(CellRow.id).where(CellRow.database == database)) is not None:
                return None
            slug: str | None = await session.scalar(select(TenantRow.slug).where(TenantRow.id == tenant_id))
            return slug

    async def _may_not_go(self, tenant_id: UUID) -> str | None:
        async with AsyncSession(self._catalog) as session:
            tenant = await session.get_one(TenantRow, tenant_id)
            home = (
                await session.execute(
                    select(PlacementRow, CellRow, ServerRow)
                    .join(CellRow, CellRow.id == PlacementRow.cell_id)
                    .join(ServerRow, ServerRow.id == CellRow.server_id)
                    .where(PlacementRow.tenant_id == tenant_id)
                )
            ).one_or_none()
        if home is None:
            return (
                None if tenant.status == TenantStatus.CLOSED else f"«{tenant.slug}» has no placement: its home is kept."
            )
        placement, cell, server = home
        kept = (
            f"«{tenant.slug}» lives in {cell.name}, which does not let it in at epoch {placement.epoch} now: what it left here "
            "is kept. Mend that, then approve again."
        )
        try:
            async with administrator(await self._registry.admin_url(server, cell.database)) as admin:
                if await fence.lets_in(admin, tenant_id, placement.schema_name, placement.epoch):
                    return None
        except (StrataError, *NO_ANSWER):
            return kept
        return kept

    async def _say(self, actor: str, slug: str, tenant_id: UUID, where: str) -> None:
        async with AsyncSession(self._catalog) as session, session.begin():
            record(session, actor, "tenant.clear", slug, tenant_id=tenant_id, detail={"where": where})
