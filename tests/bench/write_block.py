"""What a client's writes see of a cut-over, through the application, at a steady rate.

A tenant goes from shared tables to a home of its own and back, again and again, while writes are offered over HTTP: the
name of one product of a thousand is changed, each time another's. A cut-over is seen through a window from a second
before its flip to a second after it: the longest that a write waited, and the longest that no answer came. Beside them
stands what windows of the same length showed while nothing moved.
"""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import msgspec
import uvloop
from sqlalchemy import text

from strata.events import relaying
from strata.migrator.desk import Order
from strata.migrator.moves import Move
from strata.migrator.phases import Phase
from strata.moving import keeper
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.bench import strata_side
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.ground import Ground, Server
from tests.bench.load import RequestsRefusedError, http_request
from tests.bench.machine import ROOT
from tests.bench.strata_side import BenchTenant
from tests.bench.tables import Table

_AROUND_NS = 1_000_000_000
_SETTLE_S = 1.5
_WARM_UP_S = 3.0
_QUIET_WINDOWS = 10
HEAD = ["", "cut-overs", "p50", "p99", "longest", "no answer for: p50", "p99", "fence shut: p50", "called off"]


class Plan(msgspec.Struct, frozen=True):
    cut_overs: int = 20
    """Of each kind, each way: as many again for each of `to`."""
    rates: tuple[int, ...] = (40, 200, 1000)
    to: tuple[str, ...] = (Tier.SCHEMA.value, Tier.DEDICATED.value)
    connections: int = 32
    pool: tuple[int, int] = (4, 0)
    """The application's connections to a cell, kept and on top: as one would set them for two processors."""


class SteadyLoad:
    """Offers writes during the block."""

    def __init__(self, server: Server, requests: Sequence[bytes], rate: int, connections: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.steady_client"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        encoded = [base64.b64encode(each).decode() for each in requests]
        self._begin = {"port": server.port, "requests": encoded, "rate": rate, "connections": connections}

    async def __aenter__(self) -> Self:
        await self._ask(self._begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(10)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    async def window(self, from_ns: int, to_ns: int) -> dict[str, Any]:
        return await self._ask({"from_ns": from_ns, "to_ns": to_ns})

    async def end(self) -> dict[str, Any]:
        return await self._ask({"end": True})

    async def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        # In a thread: this process's loop does the move.
        return await asyncio.to_thread(self._exchange, order)

    def _exchange(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(order).decode() + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = msgspec.json.decode(self._process.stdout.readline())
        return answer


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    return uvloop.run(_run(stand.ground, plan))


async def _run(ground: Ground, plan: Plan) -> dict[str, Any]:
    [tenant, *_] = await strata_side.prepare(ground)
    server = strata_side.serve(ground, pool=plan.pool)
    async with strata_side.opened(ground) as runtime, relaying(runtime):
        requests = await renamings(runtime, tenant)
        return {"rates": [await _at_rate(runtime, tenant, server, requests, rate, plan) for rate in plan.rates]}


async def renamings(runtime: Runtime, tenant: BenchTenant) -> list[bytes]:
    """Twice round all products, the second time with other names: every one of them changes a row."""
    context = await runtime.contexts.get_by_slug(tenant.slug)
    async with runtime.tenants.reading(context) as session:
        products = (await session.scalars(text("SELECT id FROM product ORDER BY sku"))).all()
    return [
        http_request(
            "PATCH",
            f"/api/v1/products/{product}",
            tenant.host,
            headers=tenant.headers,
            body=msgspec.json.encode({"name": f"Renamed {turn}"}),
        )
        for turn in range(2)
        for product in products
    ]


async def _at_rate(
    runtime: Runtime, tenant: BenchTenant, server: Server, requests: Sequence[bytes], rate: int, plan: Plan
) -> dict[str, Any]:
    cut_overs: list[dict[str, Any]] = []
    async with SteadyLoad(server, requests, rate, plan.connections) as load:
        await asyncio.sleep(_WARM_UP_S)
        quiet = []
        for _ in range(_QUIET_WINDOWS):
            begun_ns = time.time_ns()
            await asyncio.sleep(2 * _AROUND_NS / 1e9)
            quiet.append(await load.window(begun_ns, time.time_ns()))
        for to in plan.to:
            for _ in range(plan.cut_overs):
                cut_overs.append(await _cut_over(runtime, tenant, Tier(to), load))
                cut_overs.append(await _cut_over(runtime, tenant, Tier.SHARED, load))
        ended = await load.end()
    return {"offered_per_s": rate, "quiet": quiet, "cut_overs": cut_overs, **ended}


async def _cut_over(runtime: Runtime, tenant: BenchTenant, to: Tier, load: SteadyLoad) -> dict[str, Any]:
    begun = time.monotonic()
    cell = strata_side.CELL if to is not Tier.DEDICATED else None
    started = await runtime.desk.start(Order(tenant.slug, to, cell=cell, retention_s=0), strata_side.ACTOR)
    moved = await keeper(runtime).work_on(started.id)
    took_s = time.monotonic() - begun
    if moved is None or moved.phase is not Phase.COMPLETED:
        message = f"the move to {to} did not complete: {moved.failure if moved else 'somebody else has it'}"
        raise RequestsRefusedError(message)
    return {"move_s": round(took_s, 3), **await seen(runtime, moved, load)}


async def seen(runtime: Runtime, moved: Move, load: SteadyLoad) -> dict[str, Any]:
    """The window around the flip of a move that is over, by whoever offered the writes."""
    # The last that were under way have been answered by then, and the next move's preparations are not in the window.
    await asyncio.sleep(_SETTLE_S)
    events = await runtime.desk.moves.events(moved.id)
    [flip] = [event for event in events if event.what == "flipped"]
    flipped_ns = _nanoseconds(flip.at)
    return {
        "from": moved.source.tier.value,
        "to": moved.target.tier.value,
        "write_block_ms": moved.write_block_ms,
        "called_off": sum(event.what == "called off" for event in events),
        "times_ms": flip.detail["times_ms"],
        **await load.window(flipped_ns - _AROUND_NS, flipped_ns + _AROUND_NS),
    }


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1e9)


def tables(found: dict[str, Any]) -> list[Table]:
    shown = []
    for rate in found["rates"]:
        rows = [HEAD]
        ways = sorted({(each["from"], each["to"]) for each in rate["cut_overs"]})
        rows += [
            row(f"{one} to {other}", [c for c in rate["cut_overs"] if (c["from"], c["to"]) == (one, other)])
            for one, other in ways
        ]
        rows.append(row("all", rate["cut_overs"]))
        rows.append(row("nothing moved", rate["quiet"]))
        answered_per_s = rate["answered"] / rate["seconds"]
        failed = sum(rate["failed"].values())
        title = (
            f"{rate['offered_per_s']:,} writes/s offered, {answered_per_s:,.0f} answered; the longest that a write waited"
            f" in the two seconds around a cut-over, ms; {failed:,} of {rate['answered'] + failed:,} failed"
        )
        shown.append(Table(rows, title))
    return shown


def row(name: str, windows: Sequence[dict[str, Any]]) -> list[str]:
    longest = [each["longest_ms"] for each in windows]
    gaps = [each["gap_ms"] for each in windows]
    blocks = [each["write_block_ms"] for each in windows if each.get("write_block_ms") is not None]
    called_off = str(sum(each["called_off"] for each in windows)) if blocks else ""
    return [
        name,
        str(len(windows)),
        *(f"{value:,.0f}" for value in (_share(longest, 0.5), _share(longest, 0.99), max(longest))),
        *(f"{value:,.0f}" for value in (_share(gaps, 0.5), _share(gaps, 0.99))),
        f"{_share(blocks, 0.5):,.0f}" if blocks else "",
        called_off,
    ]


def _share(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


BENCHMARK = Benchmark(
    "write-block", run, tables, plan=Plan(), quick=Plan(cut_overs=3, rates=(200,), to=(Tier.DEDICATED.value,))
)
