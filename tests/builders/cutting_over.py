"""A tenant that changes its home, told from the end: what a move leaves in catalog and cells, without the move."""

from __future__ import annotations

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import async_sessionmaker

from strata.runtime import Runtime
from strata.tenancy.catalog.tables import CellRow, PlacementRow
from strata.tenancy.context import TenantContext
from strata.tenancy.events.tables import OutboxRemainderRow
from tests.builders.platform import admin_of


async def cut_over(runtime: Runtime, context: TenantContext, cell: str) -> TenantContext:
    """To another shared cell, with none of its rows: fence, marker, flip, in the order of the protocol."""
    old, epoch = context.placement, context.placement.epoch + 1
    async with admin_of(runtime, old.cell) as admin, admin.transaction():
        await admin.execute("SELECT pg_advisory_xact_lock(strata.lock_key($1))", context.id)
        await admin.execute("UPDATE strata.fence SET state = 'moved' WHERE tenant_id = $1", context.id)
    async with admin_of(runtime, cell) as admin:
        await admin.execute(
            "INSERT INTO strata.fence (tenant_id, epoch, state, schema_name) VALUES ($1, $2, 'active', $3)"
            " ON CONFLICT (tenant_id) DO UPDATE SET epoch = excluded.epoch, state = excluded.state",
            context.id,
            epoch,
            old.schema_name,
        )
    async with async_sessionmaker(runtime.catalog_engine).begin() as session:
        there = select(CellRow.id).where(CellRow.name == cell).scalar_subquery()
        await session.execute(
            update(PlacementRow).where(PlacementRow.tenant_id == context.id).values(cell_id=there, epoch=epoch)
        )
    await runtime.contexts.announce(context.id)
    return await runtime.contexts.fresh(context.id)


async def remainders(runtime: Runtime, context: TenantContext) -> int:
    async with async_sessionmaker(runtime.catalog_engine)() as session:
        query = select(func.count()).where(OutboxRemainderRow.tenant_id == context.id)
        return int(await session.scalar(query) or 0)
