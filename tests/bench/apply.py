"""Applying a backlog: this applier beside PostgreSQL's own, on one server, from two slots over the same log.

Each round makes the backlog once (in transactions of 100 rows, of one row, and of one row with 500 hot rows), lets the
one apply it and then the other, and swaps their order in the next round.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from strata.migrator.apply_tables import Route
from strata.migrator.origins import create_origin
from strata.migrator.progress import start_progress
from strata.migrator.replay import ReplayOptions, Source, Target, replaying
from strata.migrator.slots import drop_slot, exported_slot
from strata.migrator.stream import StreamOptions
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.tables import Table
from tests.builders.streams import PROGRESS_TABLE_SQL

TENANT = UUID("00000000-0000-0000-0000-000000000001")
TABLE = """
    CREATE TABLE item (
        tenant_id uuid NOT NULL, id uuid NOT NULL, sku text NOT NULL, name text NOT NULL, quantity bigint NOT NULL,
        price numeric NOT NULL, changed_at timestamptz NOT NULL, attributes jsonb NOT NULL, number int NOT NULL,
        PRIMARY KEY (tenant_id, id));
    CREATE INDEX ON item (tenant_id, sku);
    CREATE INDEX ON item (tenant_id, quantity);
    CREATE UNIQUE INDEX ON item (number);
"""
FILL = """
    INSERT INTO item SELECT $1, md5(i::text)::uuid, 'sku-' || i, 'the name of item ' || i, i, i * 1.25, '2026-01-01',
           '{"colour": "blue"}', i FROM generate_series(1, $2::int) i
"""
WORK = """
    CREATE PROCEDURE work(updates int, size int, hot int) LANGUAGE plpgsql AS $$
    BEGIN
        FOR i IN 1 .. updates / size LOOP
            UPDATE item SET quantity = quantity + 1, changed_at = clock_timestamp()
             WHERE number = ANY (ARRAY(SELECT 1 + (random() * (hot - 1))::int FROM generate_series(1, size)));
            COMMIT;
        END LOOP;
    END $$
"""


_SHOWN = ("native_rows_s", "ours_rows_s", "python_cpu_s")


class Plan(msgspec.Struct, frozen=True):
    updates: int = 200_000
    rows: int = 200_000
    rounds: int = 3
    streaming: bool = False
    """Whether the server streams big transactions before they are committed."""


class Load(msgspec.Struct, frozen=True):
    name: str
    size: int
    hot: int


class Database(msgspec.Struct, frozen=True):
    name: str
    dsn: str
    connection: asyncpg.Connection


@asynccontextmanager
async def database(dsn: str, name: str, rows: int) -> AsyncIterator[Database]:
    admin = await asyncpg.connect(dsn)
    await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await admin.execute(f"CREATE DATABASE {name}")
    own = dsn.rpartition("/")[0] + f"/{name}"
    connection = await asyncpg.connect(own, statement_cache_size=0)
    await connection.execute(TABLE)
    await connection.execute(FILL, TENANT, rows)
    await connection.execute("VACUUM ANALYZE item")
    try:
        yield Database(name, own, connection)
    finally:
        await connection.close()
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.close()


async def caught_up(target: Database, last: int) -> None:
    while await target.connection.fetchval("SELECT max(quantity) FROM item WHERE number = 1") != last:  # noqa: ASYNC110 - native apply tells nobody
        await asyncio.sleep(0.01)


async def native(target: Database, last: int) -> float:
    start = time.perf_counter()
    await target.connection.execute("ALTER SUBSCRIPTION bench ENABLE")
    await caught_up(target, last)
    took = time.perf_counter() - start
    await target.connection.execute("ALTER SUBSCRIPTION bench DISABLE")
    return took


async def ours(source: Source, target: Database, last: int, options: ReplayOptions) -> tuple[float, dict[str, object]]:
    start, cpu = time.perf_counter(), time.process_time()
    async with replaying(source, Target(target.dsn, "bench", 1), Route("public", "public", TENANT), options) as replay:
        failing = asyncio.ensure_future(replay.failed())
        await asyncio.wait({asyncio.ensure_future(caught_up(target, last)), failing}, return_when="FIRST_COMPLETED")
        if failing.done():
            failing.result()
        took = time.perf_counter() - start
        failing.cancel()
        applier = replay.status().applier
        await asyncio.sleep(1.5)
    return took, {
        "python_cpu_s": round(time.process_time() - cpu, 2),
        "segments": applier.segments,
        "rows_written": applier.rows,
    }


@asynccontextmanager
async def _subscribed(dsn: str, plan: Plan) -> AsyncIterator[tuple[Database, Database, Database, Source]]:
    """The source, the two targets, each with a slot of its own over the same log, and where ours begins."""
    async with (
        database(dsn, "apply_source", plan.rows) as source,
        database(dsn, "apply_native", plan.rows) as by_native,
        database(dsn, "apply_ours", plan.rows) as by_ours,
    ):
        await source.connection.execute(WORK)
        await source.connection.execute(
            "CREATE PUBLICATION bench FOR TABLE item WITH (publish_via_partition_root = true)"
        )
        await source.connection.execute("SELECT pg_create_logical_replication_slot('bench_native', 'pgoutput')")
        await by_native.connection.execute(
            f"CREATE SUBSCRIPTION bench CONNECTION '{source.dsn}' PUBLICATION bench"
            " WITH (create_slot = false, slot_name = bench_native, copy_data = false, enabled = false)"
        )
        await by_ours.connection.execute("CREATE SCHEMA strata;" + PROGRESS_TABLE_SQL)
        await create_origin(by_ours.dsn, "bench")
        async with exported_slot(source.dsn, "bench_ours", deadline_s=30) as slot:
            pin = slot.pin
        await start_progress(by_ours.dsn, "bench", 1, pin.consistent_point)
        yield source, by_native, by_ours, Source(source.dsn, pin, "bench")
        await by_native.connection.execute("ALTER SUBSCRIPTION bench SET (slot_name = NONE); DROP SUBSCRIPTION bench")
        await drop_slot(source.dsn, "bench_native")
        await drop_slot(source.dsn, "bench_ours")


async def _measure(dsn: str, plan: Plan) -> dict[str, Any]:
    loads = [
        Load("100 rows a transaction", 100, plan.rows),
        Load("1 row a transaction", 1, plan.rows),
        Load("1 row a transaction, 500 hot rows", 1, 500),
    ]
    options = ReplayOptions(stream=StreamOptions(streaming=plan.streaming))
    found: dict[str, list[dict[str, Any]]] = {load.name: [] for load in loads}
    async with _subscribed(dsn, plan) as (source, by_native, by_ours, stream):
        last = 1
        for number in range(plan.rounds):
            for load in loads:
                await source.connection.execute(f"CALL work({plan.updates}, {load.size}, {load.hot})")
                last += 1_000_000
                await source.connection.execute("UPDATE item SET quantity = $1 WHERE number = 1", last)
                await source.connection.execute("CHECKPOINT")
                figures: dict[str, Any] = {}
                for side in ("native", "ours") if number % 2 == 0 else ("ours", "native"):
                    if side == "native":
                        figures["native_rows_s"] = round(plan.updates / await native(by_native, last))
                    else:
                        took, more = await ours(stream, by_ours, last, options)
                        figures |= {"ours_rows_s": round(plan.updates / took), **more}
                figures["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
                found[load.name].append(figures)
    return {"updates": plan.updates, "loads": found}


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    return asyncio.run(_measure(stand.ground.dsn("postgres"), plan))


def tables(found: dict[str, Any]) -> list[Table]:
    rows = [[f"{found['updates']:,} updates", "PostgreSQL's, rows/s", "Strata's, rows/s", "times", "CPU of Python, s"]]
    for name, rounds in found["loads"].items():
        theirs, own, cpu = (median(each[key] for each in rounds) for key in _SHOWN)
        times = median(each["ours_rows_s"] / each["native_rows_s"] for each in rounds)
        rows.append([name, f"{theirs:,.0f}", f"{own:,.0f}", f"{times:.2f}", f"{cpu:.1f}"])
    return [Table(rows)]


BENCHMARK = Benchmark(
    "apply", run, tables, plan=Plan(), quick=Plan(updates=10_000, rows=50_000, rounds=1), durable=False
)
