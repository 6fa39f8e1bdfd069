"""What tenants had left on a server and is back with its standby: their old homes, and databases of deleted ones.

Removed only on the catalog's positive word: the tenant was deleted, or it lives elsewhere and is let in there. Where it is
not, this may be the only copy that there is.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from sqlalchemy import String, Uuid, any_, cast, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from strata.migrator import fence
from strata.migrator.approval.findings import Finding
from strata.platform.database.administration import administrator
from strata.platform.database.failures import NO_ANSWER
from strata.platform.errors import StrataError
from strata.tenancy.catalog.audit import record
from strata.tenancy.catalog.tables import CellRow, PlacementRow, ServerRow, TenantRow
from strata.tenancy.model import SHARED_SCHEMA, Holder, TenantStatus, Tier, tenant_schema
from strata.tenancy.provisioning.exclusion import TenantBusyError, claim, release, tenant_subject
from strata.tenancy.provisioning.homes import Home, Site

if TYPE_CHECKING:
    from sqlalchemy import URL

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
        # As made with the tenant, and as made by a move, which carries the end of the tenant's id.
        names = r"_dedicated_(?:([0-9a-f]{32})|([0-9a-f]{12})_[0-9a-f]{8})"
        self._dedicated = re.compile(re.escape(role_prefix.replace("-", "_")) + names)

    async def clear(
        self, server: ServerRow, cell: PromotedCell, findings: list[Finding], actor: str
    ) -> AsyncIterator[Leftover]:
        """Old homes in the cell, as the findings say; and schemas of deleted tenants, which have no fence."""
        homes = [(each.tenant_id, each.slug, each.was.schema_name) for each in findings if each.clear and each.was]
        fenced = {finding.tenant_id for finding in findings}
        homes += [home for home in await self._deleted_with_schema(cell) if home[0] not in fenced]
        for tenant_id, slug, schema in homes:
            remove = partial(self._remove, server, cell, tenant_id, schema)
            yield await self._take_away(server.name, tenant_id, slug, cell.row.name, actor, remove)

    async def clear_databases(self, server: str, url: URL, actor: str, *, dry_run: bool) -> AsyncIterator[Leftover]:
        """Databases of dedicated tenants that the catalog does not have as cells any more; `url`: the administrator's."""
        async with administrator(url) as admin:
            there = [row["datname"] for row in await admin.fetch("SELECT datname FROM pg_database")]
        for database in there:
            if (tenant := await self._had_database(database)) is None:
                continue
            if dry_run:
                why = await self._may_not_go(tenant.id)
                yield Leftover(tenant.slug, database, removed=why is None, sentence=why or "")
            else:
                drop = partial(self._cells.drop_database, url, database)
                yield await self._take_away(server, tenant.id, tenant.slug, database, actor, drop)

    async def _take_away(
        self, server: str, tenant_id: UUID, slug: str, where: str, actor: str, remove: Callable[[], Awaitable[None]]
    ) -> Leftover:
        reference, subjects = claimed_as(server), [tenant_subject(tenant_id)]
        try:
            async with AsyncSession(self._catalog) as session, session.begin():
                # A move could bring the tenant back here meanwhile. Left behind by a death, it is the next run's.
                await claim(session, Holder.REMOVAL, reference, subjects)
        except TenantBusyError as error:
            return Leftover(slug, where, removed=False, sentence=error.detail)
        if (why := await self._may_not_go(tenant_id)) is None:
            await remove()
        async with AsyncSession(self._catalog) as session, session.begin():
            if why is None:
                record(session, actor, "tenant.clear", slug, tenant_id=tenant_id, detail={"where": where})
            await release(session, Holder.REMOVAL, reference, subjects)
        return Leftover(slug, where, removed=why is None, sentence=why or "")

    async def _remove(self, server: ServerRow, cell: PromotedCell, tenant_id: UUID, schema: str) -> None:
        tier = Tier.SHARED if schema == SHARED_SCHEMA else Tier.SCHEMA
        placement = PlacementRow(tenant_id=tenant_id, cell_id=cell.row.id, tier=tier, schema_name=schema)
        url = await self._registry.admin_url(server)
        await self._homes[tier].remove(Site(tenant_id, placement, cell.row, server, url, cell.url))

    async def release(self, server: ServerRow) -> None:
        """What a run that died between a removal and its end still claims."""
        async with AsyncSession(self._catalog) as session, session.begin():
            await release(session, Holder.REMOVAL, claimed_as(server.name))

    async def _deleted_with_schema(self, cell: PromotedCell) -> list[tuple[UUID, str, str]]:
        """Kept ready when the standby heard last, then a tenant's that was deleted before anybody was told."""
        async with administrator(cell.url) as admin:
            there = await admin.fetch("SELECT nspname FROM pg_namespace WHERE nspname ~ '^t_[0-9a-f]{32}$'")
        named = literal([UUID(row["nspname"].removeprefix("t_")) for row in there], ARRAY(Uuid))
        query = select(TenantRow.id, TenantRow.slug).where(
            TenantRow.id == any_(named), TenantRow.status == TenantStatus.CLOSED
        )
        async with AsyncSession(self._catalog) as session:
            rows = (await session.execute(query.order_by(TenantRow.slug))).all()
        return [(tenant_id, slug, tenant_schema(tenant_id)) for tenant_id, slug in rows]

    async def _had_database(self, database: str) -> TenantRow | None:
        """None: it is a cell's, or no dedicated tenant's that the catalog knows."""
        match = self._dedicated.fullmatch(database)
        if match is None:
            return None
        its_own = TenantRow.id == UUID(match[1]) if match[1] else cast(TenantRow.id, String).endswith(match[2])
        async with AsyncSession(self._catalog, expire_on_commit=False) as session:
            if await session.scalar(select(CellRow.id).where(CellRow.database == database)) is not None:
                return None
            found = (await session.scalars(select(TenantRow).where(its_own).limit(2))).all()
        return found[0] if len(found) == 1 else None

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
