"""What a client's writes see of a cut-over that something big goes on beside, set next to a quiet one.

- *a million rows*: a neighbour in the same cell has inserted them in one transaction and commits it at the moment at which
  the move, held at `ready`, is told to cut over: the log up to the cut-over has to be decoded past them.
- *a report*: the tenant itself reads for seconds in one transaction, which has begun when the move is told to cut over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import uvloop
from sqlalchemy import text

from strata.events import relaying
from strata.migrator.desk import Order
from strata.migrator.phases import Phase, Wish
from strata.moving import keeper
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.bench import strata_side
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.ground import Ground
from tests.bench.load import RequestsRefusedError
from tests.bench.strata_side import BenchTenant
from tests.bench.tables import Table
from tests.bench.write_block import HEAD, SteadyLoad, renamings, row, seen

_READY_EVERY_S = 0.05
_UNBOUNDED = "SELECT set_config(name, '0', true) FROM unnest(ARRAY['statement_timeout', 'transaction_timeout']) AS name"
_FILL = """
INSERT INTO product (sku, name) SELECT :name || '-' || n, 'Product ' || n FROM generate_series(1, CAST(:rows AS integer)) AS n
"""
_REPORT = "SELECT count(*), pg_sleep(:seconds) FROM product"


class Plan(msgspec.Struct, frozen=True):
    cut_overs: int = 4
    """Of each kind, each way."""
    rate: int = 40
    rows: int = 1_000_000
    report_s: float = 3.0
    connections: int = 32


class _Stage(msgspec.Struct, frozen=True):
    runtime: Runtime
    moving: BenchTenant
    neighbour: BenchTenant
    load: SteadyLoad
    plan: Plan

    @asynccontextmanager
    async def nothing(self, _number: int) -> AsyncIterator[None]:
        yield

    @asynccontextmanager
    async def a_million_rows(self, number: int) -> AsyncIterator[None]:
        context = await self.runtime.contexts.get_by_slug(self.neighbour.slug)
        async with self.runtime.tenants.transaction(context) as session:
            await session.execute(text(_UNBOUNDED))
            await session.execute(text(_FILL), {"name": f"M{number}", "rows": self.plan.rows})
            yield

    @asynccontextmanager
    async def a_report(self, _number: int) -> AsyncIterator[None]:
        begun = asyncio.Event()

        async def read() -> None:
            context = await self.runtime.contexts.get_by_slug(self.moving.slug)
            async with self.runtime.tenants.reading(context) as session:
                begun.set()
                await session.execute(text(_REPORT), {"seconds": self.plan.report_s})

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            await begun.wait()
            yield


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    return uvloop.run(_run(stand.ground, plan))


async def _run(ground: Ground, plan: Plan) -> dict[str, Any]:
    moving, neighbour, *_ = await strata_side.prepare(ground)
    server = strata_side.serve(ground)
    async with strata_side.opened(ground) as runtime, relaying(runtime):
        requests = await renamings(runtime, moving)
        async with SteadyLoad(server, requests, plan.rate, plan.connections) as load:
            stage = _Stage(runtime, moving, neighbour, load, plan)
            found: dict[str, list[dict[str, Any]]] = {}
            for number in range(plan.cut_overs):
                for name, beside in (
                    ("nothing", stage.nothing),
                    ("a million rows", stage.a_million_rows),
                    ("a report", stage.a_report),
                ):
                    for to in (Tier.SCHEMA, Tier.SHARED):
                        seen_there = await _cut_over(stage, to, beside(2 * number + (to is Tier.SHARED)))
                        found.setdefault(name, []).append(seen_there)
            ended = await load.end()
    return {"offered_per_s": plan.rate, "rows": plan.rows, "report_s": plan.report_s, "cut_overs": found, **ended}


async def _cut_over(stage: _Stage, to: Tier, beside: Any) -> dict[str, Any]:  # noqa: ANN401 - a context manager of the stage's
    desk = stage.runtime.desk
    order = Order(stage.moving.slug, to, cell=strata_side.CELL, retention_s=0, hold=True)
    started = await desk.start(order, strata_side.ACTOR)
    working = asyncio.create_task(keeper(stage.runtime).work_on(started.id))
    while (await desk.moves.get(started.id)).phase is not Phase.READY:
        if working.done():
            message = f"the move to {to} came to an end before it was held: {working.result()}"
            raise RequestsRefusedError(message)
        await asyncio.sleep(_READY_EVERY_S)
    async with beside:
        await desk.ask(started.id, Wish.CUT_OVER, strata_side.ACTOR)
    moved = await working
    if moved is None or moved.phase is not Phase.COMPLETED:
        message = f"the move to {to} did not complete: {moved.failure if moved else 'somebody else has it'}"
        raise RequestsRefusedError(message)
    return await seen(stage.runtime, moved, stage.load)


def tables(found: dict[str, Any]) -> list[Table]:
    rows = [HEAD, *(row(f"beside {name}", windows) for name, windows in found["cut_overs"].items())]
    failed = sum(found["failed"].values())
    title = (
        f"{found['offered_per_s']:,} writes/s offered; a transaction of {found['rows']:,} rows, a report of"
        f" {found['report_s']:g} s; ms; {failed:,} of {found['answered'] + failed:,} failed"
    )
    return [Table(rows, title)]


BENCHMARK = Benchmark(
    "write-block-beside", run, tables, plan=Plan(), quick=Plan(cut_overs=1, rows=100_000, report_s=1.0)
)
