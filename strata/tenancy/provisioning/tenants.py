"""Making and removing tenants, so that a death at any moment leaves nothing that is not swept up.

The order is: register in the catalog (provisioning), make the home, activate. Whatever exists in a cell is therefore
known to the catalog first. A lease tells work in progress from work that died.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import msgspec
import structlog
from sqlalchemy import URL, delete, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from strata.platform.database.lease import brief_lease, lease
from strata.platform.errors import ConflictError, InvalidInputError, StrataError
from strata.platform.ids import new_id
from strata.tenancy.catalog.audit import SYSTEM, record
from strata.tenancy.catalog.registry import Registry, dedicated_cell_name
from strata.tenancy.catalog.tables import (
    AuditRow,
    CellRow,
    DomainRow,
    EntitlementRow,
    PlacementRow,
    ServerRow,
    TenantDocumentRow,
    TenantRow,
)
from strata.tenancy.catalog.tenants import Announce
from strata.tenancy.errors import UnknownTenantError
from strata.tenancy.flags.tables import FlagOverrideRow
from strata.tenancy.model import FIRST_EPOCH, CellKind, Holder, TenantStatus, Tier, schema_for, validate_slug
from strata.tenancy.plans import plan_named, plans
from strata.tenancy.provisioning.cells import CellBuilder
from strata.tenancy.provisioning.exclusion import claim, release, tenant_subject
from strata.tenancy.provisioning.homes import Home, Site
from strata.tenancy.provisioning.placing import choose_cell, choose_server
from strata.tenancy.provisioning.stock import Stock
from strata.tenancy.settings.tables import SettingsChangeRow, TenantSecretRow, TenantSettingsRow

log = structlog.get_logger()

_AT_ONCE = 4
"""Creations of one process: each holds a connection to the catalog and needs a second; DDL gains nothing by more."""


class NewTenant(msgspec.Struct, frozen=True):
    slug: str
    name: str
    tier: Tier
    plan: str | None = None
    """None: the lowest plan whose default is the tier."""
    region: str | None = None
    cell: str | None = None
    """A shared cell by name; None: the emptiest with room."""
    parent: str | None = None


class Created(msgspec.Struct, frozen=True):
    id: UUID
    slug: str
    created: bool
    """False when a tenant of that slug and tier was there already."""


class Removal(msgspec.Struct, frozen=True):
    """Proof of a deletion: what was looked for afterwards, and how much of it was found (nothing)."""

    id: UUID
    slug: str
    tier: Tier
    cell: str
    removed_at: datetime
    remains: dict[str, int]


class BusyError(ConflictError):
    code = "tenant-busy"
    title = "Tenant is being worked on"

    def __init__(self, slug: str) -> None:
        super().__init__(f"Another process is creating or deleting «{slug}» right now; try again when it is done.")


class InUseError(ConflictError):
    code = "tenant-in-use"
    title = "Tenant is in use"

    def __init__(self, slug: str) -> None:
        super().__init__(
            f"Somebody has been working in «{slug}» for longer than a deletion waits. Nobody new gets in: delete it again."
        )


class RemovalIncompleteError(StrataError):
    code = "removal-incomplete"
    title = "Something is left"

    def __init__(self, slug: str, remains: dict[str, int]) -> None:
        left = ", ".join(f"{count} {what}" for what, count in remains.items() if count)
        super().__init__(f"Deleting «{slug}» left {left}; run the command again.", extra={"remains": remains})


class Provisioning:
    def __init__(
        self,
        catalog: AsyncEngine,
        catalog_url: URL,
        registry: Registry,
        cells: CellBuilder,
        homes: dict[Tier, Home],
        announce: Announce,
        stock: Stock,
    ) -> None:
        self.stock = stock
        self._catalog = catalog
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._sessions = async_sessionmaker(catalog, expire_on_commit=False)
        self._catalog_url = catalog_url
        self._registry = registry
        self._cells = cells
        self._homes = homes
        self._announce = announce

    async def create(self, new: NewTenant, actor: str) -> Created:
        """Make a tenant on any tier. Called again with the same slug and tier it returns the tenant there is."""
        validate_slug(new.slug)
        plan = new.plan or default_plan(new.tier)
        if new.tier not in plan_named(plan).tiers:
            detail = f"Plan «{plan}» does not offer the {new.tier.value} tier."
            raise InvalidInputError(detail, extra={"errors": [{"path": "/tier", "message": detail}]})
        async with self._turns, brief_lease(self._catalog, f"tenant/{new.slug}") as ours:
            if not ours:
                raise BusyError(new.slug)
            existing = await self._existing(new.slug)
            if existing is not None:
                tenant, placement = existing
                if tenant.status not in {TenantStatus.PROVISIONING, TenantStatus.CLOSING}:
                    return self._same(new, tenant, placement)
                await self._undo(tenant)
            tenant = await self._register(new, plan)
            try:
                site = await self._site(tenant.id)
                await self._homes[new.tier].build(site)
                await self._activate(tenant, site, actor)
            except BaseException:
                await asyncio.shield(self._undo(tenant))
                raise
        await self._announce(tenant.id)
        return Created(tenant.id, tenant.slug, created=True)

    async def delete(self, slug: str, actor: str) -> Removal:
        """Remove a tenant's data and everything made for it, look whether anything is left, and say so."""
        async with lease(self._catalog_url, f"tenant/{slug}") as ours:
            if not ours:
                raise BusyError(slug)
            existing = await self._existing(slug)
            if existing is None:
                raise UnknownTenantError(slug)
            tenant, _ = existing
            async with self._sessions.begin() as session:
                # Given back with the catalog's other rows of the tenant: a removal that dies is finished, not undone.
                await claim(session, Holder.REMOVAL, str(tenant.id), [tenant_subject(tenant.id)])
                row = await session.get_one(TenantRow, tenant.id)
                row.status, row.status_reason = TenantStatus.CLOSING, "deletion"
            await self._announce(tenant.id)
            removal = await self._remove(tenant, actor)
        await self._announce(tenant.id)
        return removal

    async def sweep(self) -> list[str]:
        """Finish or undo what died: tenants half made, tenants half deleted. Returns their slugs."""
        async with self._sessions() as session:
            stuck = (
                await session.scalars(
                    select(TenantRow).where(TenantRow.status.in_([TenantStatus.PROVISIONING, TenantStatus.CLOSING]))
                )
            ).all()
        swept = []
        for tenant in stuck:
            async with lease(self._catalog_url, f"tenant/{tenant.slug}") as ours:
                existing = await self._existing(tenant.slug) if ours else None
                if existing is None or existing[0].id != tenant.id:
                    continue
                try:
                    if existing[0].status == TenantStatus.PROVISIONING:
                        await self._undo(tenant)
                    elif existing[0].status == TenantStatus.CLOSING:
                        await self._remove(tenant, SYSTEM)
                    else:
                        continue
                except (StrataError, asyncpg.PostgresError, OSError) as error:
                    # One whose server is away, or that is still in use, must not keep the others from being swept.
                    log.warning("sweep.left", tenant=tenant.slug, was=tenant.status, error=str(error))
                    continue
                log.info("swept", tenant=tenant.slug, was=tenant.status)
                swept.append(tenant.slug)
        return swept

    def _same(self, new: NewTenant, tenant: TenantRow, placement: PlacementRow | None) -> Created:
        if placement is None or placement.tier != new.tier:
            where = placement.tier if placement else "no"
            message = f"There is a tenant «{new.slug}» already, on the {where} tier; a migration moves it."
            raise ConflictError(message)
        return Created(tenant.id, tenant.slug, created=False)

    async def _existing(self, slug: str) -> tuple[TenantRow, PlacementRow | None] | None:
        async with self._sessions() as session:
            rows = await session.execute(
                select(TenantRow, PlacementRow)
                .outerjoin(PlacementRow, PlacementRow.tenant_id == TenantRow.id)
                .where(TenantRow.slug == slug, TenantRow.status != TenantStatus.CLOSED)
            )
            return rows.one_or_none()

    async def _register(self, new: NewTenant, plan: str) -> TenantRow:
        async with self._sessions.begin() as session:
            parent_id = await self._parent(session, new.parent) if new.parent else None
            tenant_id, cell = await self._room(session, new, plan)
            tenant = TenantRow(
                id=tenant_id,
                slug=new.slug,
                name=new.name,
                status=TenantStatus.PROVISIONING,
                plan=plan,
                plan_version=plan_named(plan).version,
                region=new.region,
                parent_id=parent_id,
            )
            session.add(tenant)
            await session.flush()
            session.add(
                PlacementRow(
                    tenant_id=tenant.id,
                    cell_id=cell.id,
                    tier=new.tier,
                    schema_name=schema_for(new.tier, tenant.id),
                    epoch=FIRST_EPOCH,
                )
            )
        return tenant

    async def _room(self, session: AsyncSession, new: NewTenant, plan: str) -> tuple[UUID, CellRow]:
        """Where the tenant is to live, and its id: that of a home which stands there ready, or a new one."""
        if new.tier is not Tier.DEDICATED:
            cell = await choose_cell(session, new.region, new.cell, plan=plan)
            ready = await self.stock.take(session, cell.id) if new.tier is Tier.SCHEMA else None
            return ready or new_id(), cell
        tenant_id = new_id()
        server = await choose_server(session, new.region, plan=plan)
        name = dedicated_cell_name(tenant_id)
        return tenant_id, await self._cells.register(
            session, name, server, CellKind.DEDICATED, region=server.region, capacity=1
        )

    @staticmethod
    async def _parent(session: AsyncSession, slug: str) -> UUID:
        found: UUID | None = await session.scalar(
            select(TenantRow.id).where(TenantRow.slug == slug, TenantRow.status != TenantStatus.CLOSED)
        )
        if found is None:
            raise UnknownTenantError(slug)
        return found

    async def _activate(self, tenant: TenantRow, site: Site, actor: str) -> None:
        async with self._sessions.begin() as session:
            await session.execute(update(TenantRow).where(TenantRow.id == tenant.id).values(status=TenantStatus.ACTIVE))
            record(
                session,
                actor,
                "tenant.create",
                tenant.slug,
                tenant_id=tenant.id,
                detail={"tier": site.placement.tier, "cell": site.cell.name, "plan": tenant.plan},
            )

    async def _site(self, tenant_id: UUID) -> Site:
        async with self._sessions() as session:
            placement, cell, server = (
                await session.execute(
                    select(PlacementRow, CellRow, ServerRow)
                    .join(CellRow, CellRow.id == PlacementRow.cell_id)
                    .join(ServerRow, ServerRow.id == CellRow.server_id)
                    .where(PlacementRow.tenant_id == tenant_id)
                )
            ).one()
        return Site(
            tenant_id,
            placement,
            cell,
            server,
            await self._registry.admin_url(server),
            await self._registry.admin_url(server, cell.database),
        )

    async def _undo(self, tenant: TenantRow) -> None:
        """Remove a tenant that never came to be, home and rows."""
        site = await self._site(tenant.id)
        await self._homes[Tier(site.placement.tier)].remove(site)
        async with self._sessions.begin() as session:
            await self._forget(session, site)
            await session.execute(delete(TenantRow).where(TenantRow.id == tenant.id))

    async def _remove(self, tenant: TenantRow, actor: str) -> Removal:
        site = await self._site(tenant.id)
        home = self._homes[Tier(site.placement.tier)]
        try:
            await home.remove(site)
        except asyncpg.LockNotAvailableError as error:
            raise InUseError(tenant.slug) from error
        remains = await home.remains(site)
        if any(remains.values()):
            raise RemovalIncompleteError(tenant.slug, remains)
        removal = Removal(tenant.id, tenant.slug, Tier(site.placement.tier), site.cell.name, datetime.now(UTC), remains)
        async with self._sessions.begin() as session:
            await self._forget(session, site)
            row = await session.get_one(TenantRow, tenant.id)
            row.status, row.status_reason, row.closed_at = TenantStatus.CLOSED, "deleted", removal.removed_at
            proof: dict[str, object] = {"tier": removal.tier, "cell": removal.cell, "remains": remains}
            record(session, actor, "tenant.delete", tenant.slug, tenant_id=tenant.id, detail=proof)
        return removal

    @staticmethod
    async def _forget(session: AsyncSession, site: Site) -> None:
        """Take placement, domains and documents out of the catalog, and the cell with its only tenant."""
        await release(session, Holder.REMOVAL, str(site.tenant_id))
        for row in (
            PlacementRow,
            DomainRow,
            TenantDocumentRow,
            EntitlementRow,
            FlagOverrideRow,
            TenantSettingsRow,
            SettingsChangeRow,
            TenantSecretRow,
        ):
            await session.execute(delete(row).where(row.tenant_id == site.tenant_id))
        if site.cell.kind == CellKind.DEDICATED:
            await session.execute(delete(CellRow).where(CellRow.id == site.cell.id))

    async def history(self, tenant_id: UUID) -> list[AuditRow]:
        """What the catalog's audit says of a tenant, oldest first."""
        async with self._sessions() as session:
            return list(
                await session.scalars(select(AuditRow).where(AuditRow.tenant_id == tenant_id).order_by(AuditRow.at))
            )


def default_plan(tier: Tier) -> str:
    """The lowest plan that is sold with the tier by default; above the free one, which is chosen, not fallen into."""
    return next(plan.name for plan in plans().values() if plan.tiers[0] is tier and plan.rank > 0)
