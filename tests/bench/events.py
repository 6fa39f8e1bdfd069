"""Events: what writing one costs a movement, how many a second come through the relay, and how soon one does.

The cost of emission is measured in turns, on one connection, with the write path as revision 0001 made it beside the one
of 0003, in two schema tenants.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import uvloop
from asyncpg.prepared_stmt import PreparedStatement
from sqlalchemy import text

from strata.events import consumers, relaying
from strata.inventory.events import StockMoved
from strata.migrations import MIGRATIONS
from strata.platform.ids import new_id
from strata.runtime import Runtime
from strata.tenancy.cell.door import Isolation, entry_message
from strata.tenancy.cell.inspection import application
from strata.tenancy.context import TenantContext
from strata.tenancy.events.consumers import Consumer, OutsideConsumer
from strata.tenancy.events.types import Delivery
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.tenants import NewTenant
from tests.bench import strata_side
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.ground import Ground
from tests.bench.tables import Table
from tests.builders.events import until, waiting
from tests.builders.inventory import move, stocked
from tests.builders.platform import admin_of

_TELLERS = 4
_BEFORE = (MIGRATIONS / "tenant" / "sql" / "0001_post_movements.sql").read_text(encoding="utf-8")


class Plan(msgspec.Struct, frozen=True):
    movements: int = 1500
    backlog: int = 20_000
    at_rest: int = 40


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    return uvloop.run(_run(stand.ground, plan))


async def _run(ground: Ground, plan: Plan) -> dict[str, Any]:
    async with strata_side.standing(ground) as runtime:
        return {
            "emission_us": await _emission(runtime, plan),
            "relay": {
                "nobody but a counter": await _through_relay(runtime, "bench-drain", plan, alone=True),
                "all consumers": await _through_relay(runtime, "bench-told", plan, alone=False),
            },
            "at_rest_ms": await _at_rest(runtime, plan),
        }


async def _emission(runtime: Runtime, plan: Plan) -> dict[str, float]:
    """p50 of a two-line movement in PostgreSQL, in µs, with and without its event; in turns."""
    tenants = {name: await _tenant(runtime, f"bench-{name}") for name in ("silent", "telling")}
    async with admin_of(runtime, tenants["silent"].placement.cell) as admin:
        before = _BEFORE.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
        await admin.execute(f'SET search_path = "{tenants["silent"].placement.schema_name}"')
        await admin.execute(before)
    took: dict[str, list[float]] = {name: [] for name in tenants}
    async with AsyncExitStack() as stack:
        writers = {
            name: await stack.enter_async_context(_writer(runtime, context)) for name, context in tenants.items()
        }
        for number in range(plan.movements):
            for name, writer in writers.items():
                took[name].append(await writer.move(number))
    p50 = {name: round(statistics.median(times[plan.movements // 10 :]), 1) for name, times in took.items()}
    return p50 | {"ratio": round(p50["telling"] / p50["silent"], 3)}


class _Writer:
    """Posts movements on a connection of its own, timed from the statement to the commit's answer."""

    def __init__(
        self, connection: asyncpg.Connection, statement: PreparedStatement, message: str, tenant: UUID
    ) -> None:
        self._connection = connection
        self._statement = statement
        self._message = message
        self._tenant = tenant

    async def move(self, number: int) -> float:
        lines = [{"sku": f"S-{(number + n) % 50}", "bin": "B-0", "quantity": 1} for n in (0, 1)]
        movement = msgspec.json.encode({"id": new_id(), "kind": "receive", "lines": lines}).decode()
        await self._connection.execute(self._message)
        begun = time.perf_counter()
        await self._statement.fetchval(self._tenant, movement)
        await self._connection.execute("COMMIT")
        return (time.perf_counter() - begun) * 1e6


@asynccontextmanager
async def _writer(runtime: Runtime, context: TenantContext) -> AsyncIterator[_Writer]:
    cell = await runtime.registry.cell(context.placement.cell)
    message = entry_message(cell.secret, context.id, context.placement, Isolation.READ_COMMITTED, read_only=False)
    async with application(cell) as connection:
        await connection.execute(message)
        statement = await connection.prepare("SELECT post_movement($1, 'bench', $2::text::jsonb, NULL, NULL)::text")
        await connection.execute("COMMIT")
        yield _Writer(connection, statement, message, context.id)


async def _tenant(runtime: Runtime, slug: str) -> TenantContext:
    await runtime.provisioning.create(NewTenant(slug=slug, name=slug, tier=Tier.SCHEMA), strata_side.ACTOR)
    context = await runtime.contexts.get_by_slug(slug)
    await stocked(runtime, context, skus=50, bins=1)
    return context


class _Counter:
    """The cheapest consumer there can be: what is left is the relay."""

    def __init__(self) -> None:
        self.seen = 0
        self.heard_at = 0.0
        self.consumer = OutsideConsumer("bench.counter", (StockMoved,), self._count)

    async def _count(self, _context: TenantContext, deliveries: Sequence[Delivery]) -> None:
        self.seen += len(deliveries)
        self.heard_at = time.perf_counter()


async def _through_relay(runtime: Runtime, slug: str, plan: Plan, *, alone: bool) -> dict[str, float]:
    """A backlog of movements' events of some tenants, and how long until every consumer has had them all."""
    counter = _Counter()
    told: tuple[Consumer, ...] = (counter.consumer,) if alone else (*consumers(runtime), counter.consumer)
    tenants = [await _tenant(runtime, f"{slug}-{number}") for number in range(_TELLERS)]
    for context in tenants:
        async with runtime.tenants.transaction(context) as session:
            products = (await session.execute(text(_PRODUCTS))).one()
            await session.execute(text(_FILL), {"count": plan.backlog // _TELLERS, **products._asdict()})
    begun = time.perf_counter()
    async with relaying(runtime, told):
        await until(lambda: _delivered(runtime, tenants), "not all delivered", within_s=120)
    took_s = time.perf_counter() - begun
    return {"events": plan.backlog, "seconds": round(took_s, 2), "events_per_s": round(plan.backlog / took_s)}


_PRODUCTS = "SELECT p.id AS product, b.id AS bin FROM product p, bin b LIMIT 1"
_FILL = """
    SELECT strata.emit('stock.moved', 1, jsonb_build_object(
        'movements', 1, 'movement_id', strata.uuidv7(), 'movement_kind', 'receive', 'actor', 'bench',
        'changes', jsonb_build_array(jsonb_build_object(
            'product_id', CAST(:product AS uuid), 'sku', 'S-0', 'bin_id', CAST(:bin AS uuid), 'bin', 'B-0',
            'batch', '', 'quantity', 1, 'on_hand', n))))
      FROM generate_series(1, :count) AS n
"""


async def _delivered(runtime: Runtime, tenants: Sequence[TenantContext]) -> bool:
    return sum([await waiting(runtime, context) for context in tenants]) == 0


async def _at_rest(runtime: Runtime, plan: Plan) -> dict[str, float]:
    """From the return of a movement's transaction until a consumer has its event, one at a time."""
    context, counter = await _tenant(runtime, "bench-rest"), _Counter()
    took = []
    async with relaying(runtime, [counter.consumer]):
        for number in range(plan.at_rest):
            await asyncio.sleep(0.1)
            expected = counter.seen + 1
            async with runtime.tenants.transaction(context) as session:
                await move(session, "receive", (f"S-{number % 50}", "B-0", 1))
            begun = time.perf_counter()
            await until(lambda expected=expected: counter.seen == expected, "not delivered")  # type: ignore[misc]
            took.append((counter.heard_at - begun) * 1e3)
    took.sort()
    return {
        "p50": round(statistics.median(took), 1),
        "p95": round(took[int(len(took) * 0.95)], 1),
        "worst": round(took[-1], 1),
    }


def tables(found: dict[str, Any]) -> list[Table]:
    emission, at_rest = found["emission_us"], found["at_rest_ms"]
    through = [["through the relay", "events", "seconds", "events/s"]]
    through += [
        [name, f"{each['events']:,}", f"{each['seconds']:g}", f"{each['events_per_s']:,}"]
        for name, each in found["relay"].items()
    ]
    rest = [["at rest, ms", *at_rest], ["commit to consumer", *(f"{value:g}" for value in at_rest.values())]]
    cost = [
        ["two-line movement in PostgreSQL, p50 µs", *emission],
        ["", *(f"{value:,g}" for value in emission.values())],
    ]
    return [Table(rows) for rows in (through, rest, cost)]


BENCHMARK = Benchmark("events", run, tables, plan=Plan(), quick=Plan(movements=400, backlog=4_000, at_rest=20))
