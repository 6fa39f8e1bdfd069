"""Connections and the memory behind them, with 1,000 schema tenants and 100 dedicated ones at work, over many transactions.

Through the product's own pools, sessions and cached contexts, in one process. Clients draw one tenant after the other,
evenly from all, and ask some things of each in a row, as a page or an integration does: by and by every connection sees
every schema, which is the worst there is for a back end's memory. Once with the pools as set, and once with nothing ever
recycled, for comparison.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from statistics import fmean
from typing import Any

import asyncpg
import msgspec
import uvloop

from strata.inventory.products.repository import product_by_sku
from strata.platform.settings import PoolSettings
from strata.runtime import Runtime, open_runtime
from strata.tenancy.model import CellKind, Tier
from strata.tenancy.provisioning.tenants import NewTenant
from tests.bench import strata_side
from tests.bench.backends import Memory, memory, resident_mib
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.cpu import busy_ns
from tests.bench.ground import Ground
from tests.bench.tables import Table
from tests.builders.inventory import move, stocked

AS_SET, OFF = "recycling as set", "recycling off"
_NEVER = 2**31 - 1
_POOLS = {
    AS_SET: PoolSettings(),
    OFF: PoolSettings(
        recycle_after_s=_NEVER, recycle_after_transactions=_NEVER, recycle_after_schemas=_NEVER, idle_close_s=86_400
    ),
}
_SKUS = 5
_MOVES_EVERY = 5
"""The others are reads."""
_MADE_AT_ONCE = 4
_SHOWN = 10


class Plan(msgspec.Struct, frozen=True):
    transactions: int = 60_000
    without_recycling: int = 30_000
    """Transactions of the run with recycling off, at most: memory has long been at its height by then."""
    schemas: int = 1000
    dedicated: int = 100
    at_once: int = 16
    in_a_row: int = 3
    """Transactions of one tenant before a client draws the next."""
    samples: int = 50


class Sample(msgspec.Struct, frozen=True):
    transactions: int
    seconds: float
    connections: int
    """To all cells together, of this process."""
    shared: Memory
    dedicated: Memory
    process_mib: float
    opened: int
    """Connections since the server started, as it counts them."""


class _Sampler:
    """Looks at the server from outside the pools; the work goes on meanwhile."""

    def __init__(self, admin: asyncpg.Connection, role: str, shared: str) -> None:
        self._admin = admin
        self._role = role
        self._shared = shared
        self._began = time.monotonic()
        self.samples: list[Sample] = []

    async def sample(self, transactions: int) -> None:
        backends = await self._admin.fetch("SELECT pid, datname FROM pg_stat_activity WHERE usename = $1", self._role)
        opened = await self._admin.fetchval("SELECT sum(sessions)::bigint FROM pg_stat_database")
        shared = [each["pid"] for each in backends if each["datname"] == self._shared]
        dedicated = [each["pid"] for each in backends if each["datname"] != self._shared]
        self.samples.append(
            Sample(
                transactions,
                round(time.monotonic() - self._began, 1),
                len(backends),
                await asyncio.to_thread(memory, shared),
                await asyncio.to_thread(memory, dedicated),
                resident_mib(os.getpid()),
                opened,
            )
        )


@asynccontextmanager
async def _sampler(ground: Ground, runtime: Runtime) -> AsyncIterator[_Sampler]:
    cells = await runtime.registry.cells()
    [shared] = [str(cell.database) for cell in cells if cell.kind == CellKind.SHARED]
    admin = await asyncpg.connect(ground.dsn("postgres"))
    try:
        yield _Sampler(admin, f"{runtime.settings.role_prefix}_app", shared)
    finally:
        await admin.close()


async def _make_tenants(ground: Ground, plan: Plan) -> dict[str, float]:
    took: dict[str, float] = {}
    async with strata_side.standing(ground, pool=PoolSettings()) as runtime:
        turns = asyncio.Semaphore(_MADE_AT_ONCE)

        async def make(slug: str, tier: Tier) -> None:
            async with turns:
                await runtime.provisioning.create(NewTenant(slug=slug, name=slug, tier=tier), strata_side.ACTOR)
                await stocked(runtime, await runtime.contexts.get_by_slug(slug), skus=_SKUS, bins=1, on_hand=1000)

        for tier, count in ((Tier.SCHEMA, plan.schemas), (Tier.DEDICATED, plan.dedicated)):
            began = time.monotonic()
            await asyncio.gather(*(make(f"{tier}-{number}", tier) for number in range(count)))
            took[tier] = round(time.monotonic() - began, 1)
    return took


def _slugs(plan: Plan) -> Sequence[str]:
    counts = ((Tier.SCHEMA, plan.schemas), (Tier.DEDICATED, plan.dedicated))
    return [f"{tier}-{number}" for tier, count in counts for number in range(count)]


async def _work(runtime: Runtime, plan: Plan, numbers: Iterator[int], sampler: _Sampler, every: int) -> None:
    slugs = _slugs(plan)
    slug = ""
    for turn, number in enumerate(numbers):
        if turn % plan.in_a_row == 0:
            slug = random.choice(slugs)
        context = await runtime.contexts.get_by_slug(slug)
        sku = f"S-{number % _SKUS}"
        if number % _MOVES_EVERY:
            async with runtime.tenants.reading(context) as reading:
                await product_by_sku(reading, sku)
        else:
            async with runtime.tenants.transaction(context) as session:
                await move(session, "receive", (sku, "B-0", 1))
        if number % every == 0:
            await sampler.sample(number)


async def _under(ground: Ground, plan: Plan, pool: PoolSettings, transactions: int) -> dict[str, Any]:
    """Transactions of that many in a process whose pools are new."""
    async with open_runtime(strata_side.settings(ground, pool=pool)) as runtime, _sampler(ground, runtime) as sampler:
        # One iterator for all of them: together they come to that many.
        numbers = iter(range(1, transactions + 1))
        every = max(1, transactions // plan.samples)
        spent = _busy(ground)
        began = time.monotonic()
        await asyncio.gather(*(_work(runtime, plan, numbers, sampler, every) for _ in range(plan.at_once)))
        took = time.monotonic() - began
        cpu = {who: busy - spent[who] for who, busy in _busy(ground).items()}
    return {
        "transactions": transactions,
        "transactions_per_s": round(transactions / took),
        "cpu_us": {who: round(busy / transactions / 1e3) for who, busy in cpu.items()},
        "connections_opened": sampler.samples[-1].opened - sampler.samples[0].opened,
        "last_third_to_middle": _flatness(sampler.samples),
        "samples": msgspec.to_builtins(sampler.samples),
    }


def _busy(ground: Ground) -> dict[str, int]:
    """Threads of this process alone: the server is its child."""
    return {"application": time.process_time_ns(), "postgresql": busy_ns(ground.postgres_pid)}


def _flatness(samples: Sequence[Sample]) -> dict[str, float]:
    """How the last third compares with the middle one; in the first, caches fill."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    if not middle:
        return {}
    return {
        "connections": round(fmean(s.connections for s in last) / fmean(s.connections for s in middle), 3),
        "memory": round(fmean(map(_own, last)) / fmean(map(_own, middle)), 3),
        "process": round(fmean(s.process_mib for s in last) / fmean(s.process_mib for s in middle), 3),
    }


def _own(sample: Sample) -> float:
    return sample.shared.own_mib + sample.dedicated.own_mib


async def _measure(ground: Ground, plan: Plan) -> dict[str, Any]:
    made = await _make_tenants(ground, plan)
    counts = {AS_SET: plan.transactions, OFF: min(plan.transactions, plan.without_recycling)}
    runs = {name: await _under(ground, plan, pool, counts[name]) for name, pool in _POOLS.items()}
    return {"made_s": made, "runs": runs}


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    return uvloop.run(_measure(stand.ground, plan))


def tables(found: dict[str, Any]) -> list[Table]:
    return [_summary(found["runs"]), *(_over_time(name, each["samples"]) for name, each in found["runs"].items())]


def _summary(runs: dict[str, Any]) -> Table:
    head = ["", "transactions", "a second", "CPU µs, application", "CPU µs, PostgreSQL", "connections opened"]
    rows = [[*head, "last third ÷ middle: connections", "memory", "this process"]]
    for name, each in runs.items():
        numbers = [each["transactions"], each["transactions_per_s"], *each["cpu_us"].values()]
        numbers.append(each["connections_opened"])
        rows.append(
            [
                name,
                *(f"{number:,}" for number in numbers),
                *(f"{ratio:.2f}" for ratio in each["last_third_to_middle"].values()),
            ]
        )
    return Table(rows)


def _over_time(name: str, samples: Sequence[dict[str, Any]]) -> Table:
    rows = [["transactions", "connections", *_memory_heads("shared"), *_memory_heads("dedicated"), "this process, MiB"]]
    step = max(1, len(samples) // _SHOWN)
    for each in samples[step - 1 :: step]:
        parts = [f"{each['transactions']:,}", str(each["connections"])]
        for kind in ("shared", "dedicated"):
            parts += [f"{each[kind][key]:,.0f}" for key in ("own_mib", "own_median_mib", "own_largest_mib")]
        rows.append([*parts, f"{each['process_mib']:,.0f}"])
    return Table(rows, name)


def _memory_heads(kind: str) -> list[str]:
    return [f"{kind}: MiB in all", "of one, median", "largest"]


BENCHMARK = Benchmark(
    "connections",
    run,
    tables,
    plan=Plan(),
    quick=Plan(transactions=20_000, without_recycling=20_000, schemas=300, dedicated=20, samples=20),
    durable=False,
)
