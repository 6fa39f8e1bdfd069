"""Schemas kept ready for tenants to come, so that making a schema tenant does not wait for its tables.

A spare is a whole home but for its fence: schema, role and tables, under the id that its tenant will have. It is in the
catalog before anything of it is made, and in its cell's ledger, so that upgrades and doctor treat it like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from strata.platform.database.lease import lease
from strata.platform.ids import new_id
from strata.tenancy.catalog.tables import CellRow, PlacementRow, ServerRow, SpareRow
from strata.tenancy.model import FIRST_EPOCH, CellKind, CellState, Tier, schema_for
from strata.tenancy.provisioning.cells import nobody_else
from strata.tenancy.provisioning.homes import Home, Site

if TYPE_CHECKING:
    from sqlalchemy import URL

    from strata.tenancy.catalog.registry import Registry

_LEASE = "stock"


class Stock:
    def __init__(self, catalog: AsyncEngine, catalog_url: URL, registry: Registry, home: Home, wanted: int) -> None:
        self._sessions = async_sessionmaker(catalog, expire_on_commit=False)
        self._catalog_url = catalog_url
        self._registry = registry
        self._home = home
        self._wanted = wanted

    @staticmethod
    async def take(session: AsyncSession, cell_id: UUID) -> UUID | None:
        """The id of a tenant whose home stands in that cell, the caller's from now on; None when there is none."""
        oldest = (
            select(SpareRow.tenant_id)
            .where(SpareRow.cell_id == cell_id, SpareRow.ready)
            .order_by(SpareRow.tenant_id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        taken: UUID | None = await session.scalar(
            delete(SpareRow).where(SpareRow.tenant_id == oldest).returning(SpareRow.tenant_id)
        )
        return taken

    async def refill(self) -> int:
        """Make what is missing in each open shared cell, and clear what somebody who died left half made."""
        made = 0
        async with lease(self._catalog_url, _LEASE) as ours:
            if not ours:
                return 0
            await self._clear_half_made()
            async with self._sessions() as session:
                missing = await self._missing(session)
            for cell_id, count in missing:
                for _ in range(count):
                    await self._make(cell_id)
                    made += 1
        return made

    async def _missing(self, session: AsyncSession) -> list[tuple[UUID, int]]:
        spares = select(func.count()).where(SpareRow.cell_id == CellRow.id).correlate(CellRow).scalar_subquery()
        rows = await session.execute(
            select(CellRow.id, self._wanted - spares)
            .join(ServerRow, ServerRow.id == CellRow.server_id)
            .where(CellRow.kind == CellKind.SHARED, CellRow.state == CellState.OPEN, ServerRow.draining.is_(False))
            .where(spares < self._wanted)
        )
        return [(cell_id, count) for cell_id, count in rows]

    async def _make(self, cell_id: UUID) -> None:
        async with self._sessions.begin() as session:
            spare = SpareRow(tenant_id=new_id(), cell_id=cell_id)
            session.add(spare)
        await self._home.make(await self._site(spare), nobody_else)
        async with self._sessions.begin() as session:
            (await session.get_one(SpareRow, spare.tenant_id)).ready = True

    async def _clear_half_made(self) -> None:
        """Whoever holds the lease makes spares: one that is not ready belongs to nobody who lives."""
        async with self._sessions() as session:
            half_made = (await session.scalars(select(SpareRow).where(SpareRow.ready.is_(False)))).all()
        for spare in half_made:
            await self._home.unmake(await self._site(spare), nobody_else)
            async with self._sessions.begin() as session:
                await session.execute(delete(SpareRow).where(SpareRow.tenant_id == spare.tenant_id))

    async def _site(self, spare: SpareRow) -> Site:
        async with self._sessions() as session:
            cell = await session.get_one(CellRow, spare.cell_id)
            server = await session.get_one(ServerRow, cell.server_id)
        home = PlacementRow(
            tenant_id=spare.tenant_id,
            cell_id=cell.id,
            tier=Tier.SCHEMA,
            schema_name=schema_for(Tier.SCHEMA, spare.tenant_id),
            epoch=FIRST_EPOCH,
        )
        url = await self._registry.admin_url(server)
        return Site(spare.tenant_id, home, cell, server, url, url.set(database=cell.database))
