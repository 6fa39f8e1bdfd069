"""A tenant that loads its cell, as a process's watch of it would see it."""

from __future__ import annotations

from uuid import UUID

from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from strata.tenancy.neighbours.watching import NeighbourWatch
from strata.tenancy.usage.meter import UsageMeter
from tests.builders.platform import Tenantry

WINDOW_S = 2.0


class Watched:
    """A process's watch, whose windows the test ends."""

    def __init__(self, runtime: Runtime, processes: int) -> None:
        self.meter = UsageMeter()
        self.watch = NeighbourWatch(
            self.meter, runtime.contexts, runtime.neighbours, runtime.settings.usage, lambda: processes
        )
        # Its own clock is not wanted here.
        self.meter.on_use.clear()

    async def window(self, cell: str, took_ns: dict[UUID, int], *, statements: int = 20, requests: int = 40) -> None:
        for tenant_id, nanoseconds in took_ns.items():
            load = self.meter.loads.get((cell, tenant_id)) or self.meter._new_load(cell, tenant_id)
            load.statements += statements
            load.database_ns += nanoseconds
            tally = self.meter.tally(tenant_id)
            tally.requests += requests
            tally.compute_ns += 2 * nanoseconds
        await self.watch.window(WINDOW_S)


async def noisy(
    runtime: Runtime, tenant_on: Tenantry, *, plan: str | None = None, processes: int = 1
) -> tuple[Watched, TenantContext]:
    """A tenant that does in a window what it did in forty, while its neighbours' statements take five times as long."""
    watched = Watched(runtime, processes)
    loud = await tenant_on(Tier.SHARED, plan=plan)
    neighbours = [await tenant_on(Tier.SHARED) for _ in range(3)]
    usual = {each.id: 40_000_000 for each in (loud, *neighbours)}
    for _ in range(30):
        await watched.window(loud.placement.cell, usual)
    for _ in range(8):
        slower = {each.id: 200_000_000 for each in neighbours}
        await watched.window(loud.placement.cell, {**slower, loud.id: 6_000_000_000})
    return watched, loud
