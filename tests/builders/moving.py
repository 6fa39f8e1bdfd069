"""Starting moves and working them, in this process; looking at what they leave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec
from sqlalchemy import text

from strata.migrator.desk import Desk, Order
from strata.migrator.keeper import Keeper
from strata.migrator.moves import Move
from strata.migrator.phases import Phase
from strata.migrator.waves.store import Wave
from strata.moving import keep_moving, keeper
from strata.runtime import Runtime
from strata.tenancy.cell.tenant_tables import tenant_tables
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.inventory import stocked
from tests.builders.platform import ACTOR, FIRST_CELL, SECOND_CELL, Tenantry, admin_of


class Movers:
    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.desk: Desk = runtime.desk

    def keeper(self) -> Keeper:
        return keeper(self.runtime)

    async def start(
        self,
        context: TenantContext,
        to: Tier,
        *,
        cell: str | None = None,
        server: str | None = None,
        hold: bool = False,
        retention_s: int = 0,
    ) -> Move:
        order = Order(context.slug, to, cell=cell, server=server, hold=hold, retention_s=retention_s)
        return await self.desk.start(order, ACTOR)

    async def work(self, move: Move) -> Move:
        """Until it rests: finished, or waiting for a person."""
        worked = await self.keeper().work_on(move.id)
        assert worked is not None, "somebody else has the move"
        return worked

    async def move(self, context: TenantContext, to: Tier, **options: object) -> Move:
        moved = await self.work(await self.start(context, to, **options))  # type: ignore[arg-type]
        assert moved.phase is Phase.COMPLETED, moved.failure
        return moved

    @asynccontextmanager
    async def working(self, move: Move, **settings: int) -> AsyncIterator[None]:
        """A worker of this process has the move during the block; `settings`: other migrator settings than the others'."""
        migrator = self.runtime.settings.migrator.model_copy(update=settings)
        runtime = msgspec.structs.replace(
            self.runtime, settings=self.runtime.settings.model_copy(update={"migrator": migrator})
        )
        worker = asyncio.create_task(keeper(runtime).work_on(move.id))
        try:
            yield
        finally:
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        """A worker of this process takes up whatever nobody has."""
        worker = asyncio.create_task(self.keeper().run())
        try:
            yield
        finally:
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker

    @asynccontextmanager
    async def driving(self) -> AsyncIterator[None]:
        """A worker of this process does all there is to do for moves and waves."""
        worker = asyncio.create_task(keep_moving(self.runtime))
        try:
            yield
        finally:
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker

    async def rested(self, wave: Wave, within_s: float = 240.0) -> Wave:
        """Return when nothing of the wave is under way, and nothing will begin by itself."""
        async with asyncio.timeout(within_s):
            while True:
                now = await self.runtime.waves.waves.get(wave.id)
                if now.rests:
                    return now
                await asyncio.sleep(0.1)

    async def told(self, move: Move, what: str, within_s: float = 300.0) -> None:
        """Return when the event has been written."""
        async with asyncio.timeout(within_s):
            while True:
                if what in {event.what for event in await self.desk.moves.events(move.id)}:
                    return
                await asyncio.sleep(0.05)

    async def waiting(self, move: Move, why: str, within_s: float = 300.0) -> Move:
        """Return when the move says that it waits, and that this is why."""
        async with asyncio.timeout(within_s):
            while True:
                now = await self.desk.moves.get(move.id)
                if why in now.progress.get("waiting", ""):
                    return now
                await asyncio.sleep(0.05)

    async def until(self, move: Move, phase: Phase, within_s: float = 300.0) -> Move:
        async with asyncio.timeout(within_s):
            while True:
                now = await self.desk.moves.get(move.id)
                if now.phase is phase:
                    return now
                assert now.phase is not Phase.FAILED, now.failure
                await asyncio.sleep(0.05)

    async def homes_of(self, context: TenantContext) -> dict[str, list[str]]:
        """Every schema of every cell that has a row, a table or a role of the tenant's."""
        found: dict[str, list[str]] = {}
        for cell in await self.runtime.registry.cells():
            async with admin_of(self.runtime, cell.name) as admin:
                for schema in ("shared", "main", f"t_{context.id.hex}"):
                    tables = await tenant_tables(admin, schema) if await admin.fetchval(_IS_THERE, schema) else []
                    rows = 0
                    for table in tables:
                        rows += await admin.fetchval(
                            f"SELECT count(*) FROM {table.qualified} WHERE tenant_id = $1", context.id
                        )
                    if rows or (tables and schema == f"t_{context.id.hex}"):
                        found.setdefault(cell.name, []).append(schema)
        return found

    async def remains(self, move_id: UUID) -> dict[str, list[str]]:
        """What a move's name can still be found on, in every database of both servers."""
        stem = f"strata_{move_id.hex[-12:]}_%"
        found: dict[str, list[str]] = {}
        for cell in await self.runtime.registry.cells():
            async with admin_of(self.runtime, cell.name) as admin:
                for kind, query in _LOOK_FOR.items():
                    for row in await admin.fetch(query, stem):
                        found.setdefault(kind, []).append(f"{cell.name}: {row[0]}")
        async with self.runtime.catalog_engine.connect() as connection:
            rows = await connection.execute(
                text("SELECT kind, name FROM move_object WHERE move_id = :id"), {"id": move_id}
            )
            for each in rows:
                found.setdefault("registered", []).append(f"{each.kind} {each.name}")
        return found


_IS_THERE = "SELECT true FROM pg_namespace WHERE nspname = $1"
_LOOK_FOR = {
    "slots": "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE $1",
    "publications": "SELECT pubname FROM pg_publication WHERE pubname LIKE $1",
    "origins": "SELECT roname FROM pg_replication_origin WHERE roname LIKE $1",
    "progress": "SELECT origin FROM strata.apply_progress WHERE origin LIKE $1",
}


class Neighbour:
    """Tenants in the shared tables of both cells, whose rows must be the same bytes before and after any move."""

    def __init__(self, runtime: Runtime, contexts: list[TenantContext]) -> None:
        self._runtime = runtime
        self._contexts = contexts
        self._before: dict[str, str] = {}

    @classmethod
    async def settled(cls, runtime: Runtime, tenantry: Tenantry) -> Neighbour:
        contexts = [await tenantry(Tier.SHARED, cell=cell) for cell in (FIRST_CELL, SECOND_CELL)]
        for context in contexts:
            await stocked(runtime, context, skus=20, bins=3, on_hand=7)
        made = cls(runtime, contexts)
        made._before = await made._digests()
        return made

    async def assert_untouched(self) -> None:
        assert await self._digests() == self._before

    async def _digests(self) -> dict[str, str]:
        digests = {}
        for context in self._contexts:
            async with admin_of(self._runtime, context.placement.cell) as admin:
                for table in await tenant_tables(admin, context.placement.schema_name):
                    digests[f"{context.placement.cell} {table.name}"] = await admin.fetchval(
                        f"SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), ''))"
                        f" FROM {table.qualified} t WHERE tenant_id = $1",
                        context.id,
                    )
        return digests
