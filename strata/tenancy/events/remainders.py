"""What tenants have left behind: rows of the outbox do not move with their tenant.

A trigger in the catalog remembers, with every placement that changes its cell, where the tenant was and until which
epoch. What the tenant writes afterwards is delivered when nothing of before is left there. Finding nothing is conclusive:
the cut-over has waited for every writer of the old epoch before the catalog changed.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from strata.tenancy.catalog.tables import CellRow
from strata.tenancy.events.outbox import CellOutbox
from strata.tenancy.events.tables import OutboxRemainderRow
from strata.tenancy.model import CellKind, CellState

if TYPE_CHECKING:
    from strata.tenancy.cell.engines import CellSource


class RelayedCell(msgspec.Struct, frozen=True):
    name: str
    kind: CellKind


class Outboxes:
    def __init__(self, catalog: AsyncEngine, cells: CellSource) -> None:
        self._sessions = async_sessionmaker(catalog)
        self._cells = cells

    async def cells(self) -> list[RelayedCell]:
        """Every cell that has an outbox, the shared ones first."""
        query = select(CellRow.name, CellRow.kind).where(CellRow.state != CellState.BUILDING)
        async with self._sessions() as session:
            rows = await session.execute(query.order_by(CellRow.kind.desc(), CellRow.name))
            return [RelayedCell(row.name, CellKind(row.kind)) for row in rows]

    async def pending(self, tenant_id: UUID, before_epoch: int) -> bool:
        """Whether a cell that the tenant has left still has events of it, older than the epoch, to deliver."""
        return bool(await self._left_in(tenant_id, before_epoch))

    async def is_next(self, tenant_id: UUID, epoch: int, cell: str) -> bool:
        """Whether events of the epoch may be delivered from the cell: no other one has older ones.

        In the cell itself order sees to that.
        """
        return not await self._left_in(tenant_id, epoch) - {cell}

    async def _left_in(self, tenant_id: UUID, before_epoch: int) -> set[str]:
        query = (
            select(CellRow.name, OutboxRemainderRow.epoch)
            .join(CellRow, CellRow.id == OutboxRemainderRow.cell_id)
            .where(OutboxRemainderRow.tenant_id == tenant_id, OutboxRemainderRow.epoch < before_epoch)
        )
        async with self._sessions() as session:
            remainders = [(row.name, row.epoch) for row in await session.execute(query)]
        left = set()
        for cell, epoch in remainders:
            async with AsyncExitStack() as stack:
                outbox = CellOutbox(self._cells, cell)
                stack.push_async_callback(outbox.close)
                if await outbox.pending(tenant_id, epoch + 1):
                    left.add(cell)
                    continue
            await self._settle(tenant_id, epoch)
        return left

    async def _settle(self, tenant_id: UUID, epoch: int) -> None:
        async with self._sessions.begin() as session:
            await session.execute(
                delete(OutboxRemainderRow).where(
                    OutboxRemainderRow.tenant_id == tenant_id, OutboxRemainderRow.epoch == epoch
                )
            )
