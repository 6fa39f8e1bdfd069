"""What a move of a big tenant takes, and what a tenant in the cell that it leaves feels of it.

A tenant of many products goes from the shared tables to a database of its own on another server and back, again and
again, while its products are renamed over HTTP at a steady rate and a neighbour in the shared cell reads. The neighbour's
reads are timed in slices: those within a move, and as long a stretch of them just before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import msgspec
import uvloop
from sqlalchemy import text

from strata.migrator.desk import Order
from strata.migrator.moves import Move
from strata.migrator.phases import Phase
from strata.platform.database import addresses
from strata.platform.embedded import EmbeddedPostgres
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.servers import add_server
from tests.bench import goods, strata_side
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.ground import Ground, Server
from tests.bench.imports import worker
from tests.bench.load import LoadGenerator, RequestsRefusedError, http_request
from tests.bench.slices import quantiles_us
from tests.bench.strata_side import BenchTenant
from tests.bench.tables import Table
from tests.bench.write_block import SteadyLoad, renamings

_OTHER_SERVER = "server-2"
_NEIGHBOUR = "neighbour"
_QUANTILES = ("p50", "p95", "p99")
_FILLED_AT_ONCE = 100_000
_FILL = """
INSERT INTO product (sku, name, barcode, attributes)
SELECT 'BIG-' || lpad(n::text, 9, '0'), 'Product ' || n, '40' || lpad(n::text, 9, '0'), '{"colour": "red", "pieces": 6}'
FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
"""
_SLOTS = """
SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0)::bigint AS kept,
       coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)), 0)::bigint AS lag
FROM pg_replication_slots WHERE slot_type = 'logical'
"""


class Plan(msgspec.Struct, frozen=True):
    rows: int = 1_000_000
    """Products of the tenant that moves."""
    rounds: int = 3
    """There and back."""
    writes_per_s: int = 20
    """Offered to the tenant that moves."""
    seconds: float = 2.0
    """Of one slice of the neighbour's reads."""
    slices_before: int = 8


class _Stage(msgspec.Struct, frozen=True):
    runtime: Runtime
    load: LoadGenerator
    writes: SteadyLoad
    primaries: Sequence[str]
    """Addresses of both servers."""
    slug: str
    plan: Plan

    async def reads(self) -> list[int]:
        """Latencies of one slice, ns."""
        done = await asyncio.to_thread(self.load.run, _NEIGHBOUR, connections=1, seconds=self.plan.seconds)
        return done.latencies_ns

    async def kept(self) -> tuple[int, int]:
        """Of the slot that keeps most log: how much; and the most that a slot's reader is behind. Bytes."""
        kept = lag = 0
        for dsn in self.primaries:
            connection = await asyncpg.connect(dsn)
            try:
                [row] = await connection.fetch(_SLOTS)
            finally:
                await connection.close()
            kept, lag = max(kept, row["kept"]), max(lag, row["lag"])
        return kept, lag


async def _fill(runtime: Runtime, slug: str, rows: int) -> None:
    context = await runtime.contexts.get_by_slug(slug)
    for first in range(1, rows + 1, _FILLED_AT_ONCE):
        async with runtime.tenants.transaction(context) as session:
            await session.execute(text("SET LOCAL statement_timeout = 0"))
            last = min(first + _FILLED_AT_ONCE - 1, rows)
            await session.execute(text(_FILL), {"first": first, "last": last})


async def _move(stage: _Stage, order: Order, way: str) -> dict[str, Any]:
    before = [await stage.reads() for _ in range(stage.plan.slices_before)]
    started = await stage.runtime.desk.start(order, strata_side.ACTOR)
    during: list[list[int]] = []
    most_kept = most_lag = 0
    while not (move := await stage.runtime.desk.moves.get(started.id)).finished:
        if move.phase is Phase.FAILED:
            message = f"the move failed: {move.failure}"
            raise RequestsRefusedError(message)
        during.append(await stage.reads())
        kept, lag = await stage.kept()
        most_kept, most_lag = max(most_kept, kept), max(most_lag, lag)
    if move.phase is not Phase.COMPLETED or move.finished_at is None:
        message = f"the move {way} ended as {move.phase}"
        raise RequestsRefusedError(message)
    sides = {"without": before, "with": during}
    return {
        "way": way,
        "move_s": round((move.finished_at - move.created_at).total_seconds(), 1),
        "phases_s": await _phases(stage.runtime, move),
        "write_block_ms": move.write_block_ms,
        "most_log_kept_bytes": most_kept,
        "most_lag_bytes": most_lag,
        "before": [quantiles_us(each) for each in before],
        "during": [quantiles_us(each) for each in during],
        "latency_us": {name: quantiles_us(list(chain(*slices))) for name, slices in sides.items()},
        "reads": {name: sum(map(len, slices)) for name, slices in sides.items()},
    }


async def _phases(runtime: Runtime, move: Move) -> dict[str, float]:
    """How long it was in each."""
    events = await runtime.desk.moves.events(move.id)
    took: dict[str, float] = {}
    for event, following in pairwise(events):
        took[event.phase] = took.get(event.phase, 0.0) + (following.at - event.at).total_seconds()
    return {phase: round(seconds, 2) for phase, seconds in took.items()}


async def _measured(ground: Ground, load: LoadGenerator, other: EmbeddedPostgres, plan: Plan) -> dict[str, Any]:
    tenants = await strata_side.prepare(ground)
    neighbour = next(each for each in tenants if each.tier is Tier.SHARED)
    server = strata_side.serve(ground)
    _define(load, server, neighbour)
    async with strata_side.opened(ground) as runtime:
        await add_server(
            runtime.registry,
            _OTHER_SERVER,
            addresses.parse(other.dsn()),
            region="local",
            role_prefix=runtime.settings.role_prefix,
            actor=strata_side.ACTOR,
        )
        moving = await strata_side.add_tenant(runtime, "bench-moving", Tier.SHARED)
        asked = await renamings(runtime, moving)
        await _fill(runtime, moving.slug, plan.rows)
        await ground.settle(*[str(each.database) for each in await runtime.registry.cells()][:1])
        away = Order(moving.slug, Tier.DEDICATED, server=_OTHER_SERVER, retention_s=0)
        home = Order(moving.slug, Tier.SHARED, cell=strata_side.CELL, retention_s=0)
        with worker(ground):
            async with SteadyLoad(server, asked, plan.writes_per_s, connections=4) as writes:
                stage = _Stage(runtime, load, writes, [ground.dsn("postgres"), other.dsn()], moving.slug, plan)
                moves = []
                for _ in range(plan.rounds):
                    moves.append(await _move(stage, away, "away"))
                    moves.append(await _move(stage, home, "back"))
                ended = await writes.end()
    return {"moves": moves, "writes": ended, "ratio": _ratios(moves)}


def _define(load: LoadGenerator, server: Server, neighbour: BenchTenant) -> None:
    path = "/api/v1/products/by-sku/"
    reads = [http_request("GET", f"{path}{sku}", neighbour.host, headers=neighbour.headers) for sku in goods.SKUS]
    load.define(_NEIGHBOUR, server.port, reads)


def _ratios(moves: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """With a move ÷ without one, by way: the median over the rounds."""
    return {
        way: {
            quantile: round(
                median(
                    each["latency_us"]["with"][quantile] / each["latency_us"]["without"][quantile]
                    for each in moves
                    if each["way"] == way
                ),
                3,
            )
            for quantile in _QUANTILES
        }
        for way in dict.fromkeys(each["way"] for each in moves)
    }


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    directory: Path = stand.ground.directory
    with EmbeddedPostgres(directory, "postgres-2") as other:
        return uvloop.run(_measured(stand.ground, stand.load, other, plan))


def tables(found: dict[str, Any]) -> list[Table]:
    rows = [["", "took", "longest phase", "write block", "log kept at most", "behind at most", *_heads()]]
    for each in found["moves"]:
        phase, seconds = max(each["phases_s"].items(), key=lambda item: item[1])
        latency = each["latency_us"]
        rows.append(
            [
                each["way"],
                f"{each['move_s']:,.0f} s",
                f"{phase}: {seconds:,.0f} s",
                f"{each['write_block_ms']:,.0f} ms",
                f"{each['most_log_kept_bytes'] / 2**20:,.0f} MiB",
                f"{each['most_lag_bytes'] / 2**20:,.1f} MiB",
                *(f"{latency['with'][q]:,.0f} ÷ {latency['without'][q]:,.0f}" for q in _QUANTILES),
            ]
        )
    ratios = [["with ÷ without, median of rounds", *_QUANTILES]]
    ratios += [[way, *(f"{ratio[q]:.2f}" for q in _QUANTILES)] for way, ratio in found["ratio"].items()]
    writes = found["writes"]
    title = f"{writes['answered']:,} writes of the moving tenant's answered meanwhile, {sum(writes['failed'].values())} failed"
    return [Table(rows, title), Table(ratios, "The neighbour's reads")]


def _heads() -> list[str]:
    return [f"the neighbour's {quantile}, µs: with ÷ without" for quantile in _QUANTILES]


BENCHMARK = Benchmark("moving", run, tables, plan=Plan(), quick=Plan(rows=100_000, rounds=1, slices_before=4))
TEN_MILLION = Benchmark(
    "moving-ten-million",
    run,
    tables,
    plan=Plan(rows=10_000_000, rounds=1, slices_before=30),
    quick=Plan(rows=1_000_000, rounds=1),
    only_named=True,
)
"""The same with ten times the rows: more than half an hour."""
