"""A cell's outbox as the relay sees it: one connection, held while there is something to do.

Not a tenant transaction: rows stay behind in cells that their tenants have left, where nobody can enter any more. Each
call presents a capability for one tenant's rows, derived here as the one for `enter` is, and touches nothing else.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

from strata.platform.database.failures import LOST
from strata.tenancy.cell.door import Refusal
from strata.tenancy.cell.inspection import application
from strata.tenancy.errors import CapabilityRefusedError, CellClosedError, CellUnavailableError
from strata.tenancy.events.types import Entry, EventKind, Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strata.tenancy.cell.door import CellSecret
    from strata.tenancy.cell.engines import CellSource

_BATCH_BYTES = 4 * 1024 * 1024
_CALL_TIMEOUT_S = 30.0
_NOBODY = UUID(int=0)


class CellOutbox:
    def __init__(self, cells: CellSource, cell: str) -> None:
        self.cell = cell
        self._cells = cells
        self._turn = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._connection: asyncpg.Connection | None = None
        self._secret: CellSecret | None = None
        self._used_at = 0.0

    @property
    def idle_s(self) -> float:
        return time.monotonic() - self._used_at

    async def waiting(self, at_a_time: int) -> list[UUID]:
        """All tenants with events in this outbox: of those that were left out, none would have a turn while the others wait."""
        found = [_NOBODY]
        while True:
            rows = await self._call(None, "SELECT strata.outbox_waiting($1, $2, $3) AS id", found[-1], at_a_time)
            found += [UUID(int=row["id"].int) for row in rows]
            if len(rows) < at_a_time:
                return found[1:]

    async def take(self, tenant_id: UUID, after: Place, limit: int) -> list[Entry]:
        """The tenant's events after a place, in order; none that an open transaction could still come before."""
        rows = await self._call(
            tenant_id,
            "SELECT * FROM strata.outbox_take($1, $2, $3, $4, $5, $6)",
            after.epoch,
            after.position,
            limit,
            _BATCH_BYTES,
        )
        return [
            Entry(
                id=UUID(int=row["event_id"].int),
                tenant_id=tenant_id,
                place=Place(row["epoch"], row["position"]),
                kind=EventKind(row["type"], row["version"]),
                occurred_at=row["occurred_at"],
                transaction_id=int(row["transaction_id"]),
                payload=row["payload"],
            )
            for row in rows
        ]

    async def acknowledge(self, tenant_id: UUID, through: Place) -> None:
        """Everybody has been told of everything up to here: the rows go."""
        await self._call(tenant_id, "SELECT strata.outbox_acknowledge($1, $2, $3, $4)", through.epoch, through.position)

    async def pending(self, tenant_id: UUID, before_epoch: int) -> bool:
        rows = await self._call(tenant_id, "SELECT strata.outbox_pending($1, $2, $3) AS found", before_epoch)
        return bool(rows[0]["found"])

    async def close(self) -> None:
        async with self._turn:
            await self._hang_up()

    async def _call(self, tenant_id: UUID | None, query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        async with self._turn:
            try:
                async with asyncio.timeout(_CALL_TIMEOUT_S):
                    connection, secret = await self._connected()
                    self._used_at = time.monotonic()
                    capability = secret.derived(f"relay|{tenant_id or 'all'}")
                    named = () if tenant_id is None else (tenant_id,)
                    rows: Sequence[asyncpg.Record] = await connection.fetch(query, *named, capability, *arguments)
                    return rows
            except (*LOST, asyncpg.OperatorInterventionError) as error:
                await self._hang_up()
                raise CellUnavailableError(self.cell) from error
            except asyncpg.PostgresError as error:
                await self._hang_up()
                match error.sqlstate:
                    case Refusal.TIMELINE:
                        raise CellClosedError(self.cell) from error
                    case Refusal.CAPABILITY:
                        raise CapabilityRefusedError(self.cell) from error
                    case _:
                        raise
            except asyncio.CancelledError:
                await asyncio.shield(self._hang_up())
                raise

    async def _connected(self) -> tuple[asyncpg.Connection, CellSecret]:
        if self._connection is None or self._secret is None or self._connection.is_closed():
            await self._hang_up()
            cell = await self._cells.cell(self.cell)
            self._secret = cell.secret
            try:
                self._connection = await self._stack.enter_async_context(application(cell))
            except asyncpg.PostgresError as error:
                # Starting, shutting down, full, or its password has changed, which the next try reads.
                raise CellUnavailableError(self.cell) from error
        return self._connection, self._secret

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # At once: what it was doing may never end, and it has nothing that could be lost.
            connection.terminate()
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()
