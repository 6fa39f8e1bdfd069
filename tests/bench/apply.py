"""Applying a backlog: this applier beside PostgreSQL's own, on one server, from two slots over the same log.

    python -m tests.bench.apply [--updates 200000] [--rounds 3] [--dsn postgresql://…]

Each round makes the backlog once (in transactions of 100 rows, of one row, and of one row with 500 hot rows), lets the
one apply it and then the other, and swaps their order in the next round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import asyncpg
import msgspec

from strata.migrator.apply_tables import Route
from strata.migrator.origins import create_origin
from strata.migrator.progress import start_progress
from strata.migrator.replay import ReplayOptions, Source, Target, replaying
from strata.migrator.slots import drop_slot, exported_slot
from strata.migrator.stream import StreamOptions
from strata.platform.embedded import EmbeddedPostgres
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


async def run(dsn: str, arguments: argparse.Namespace) -> None:
    loads = [
        Load("100 rows a transaction", 100, arguments.rows),
        Load("1 row a transaction", 1, arguments.rows),
        Load("1 row a transaction, 500 hot rows", 1, 500),
    ]
    options = ReplayOptions(stream=StreamOptions(streaming=arguments.streaming))
    async with (
        database(dsn, "apply_source", arguments.rows) as source,
        database(dsn, "apply_native", arguments.rows) as by_native,
        database(dsn, "apply_ours", arguments.rows) as by_ours,
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
        last = 1
        for number in range(arguments.rounds):
            for load in loads:
                await source.connection.execute(f"CALL work({arguments.updates}, {load.size}, {load.hot})")
                last += 1_000_000
                await source.connection.execute("UPDATE item SET quantity = $1 WHERE number = 1", last)
                await source.connection.execute("CHECKPOINT")
                figures: dict[str, object] = {"round": number, "load": load.name, "updates": arguments.updates}
                for side in ("native", "ours") if number % 2 == 0 else ("ours", "native"):
                    if side == "native":
                        figures["native_rows_s"] = round(arguments.updates / await native(by_native, last))
                    else:
                        took, more = await ours(Source(source.dsn, pin, "bench"), by_ours, last, options)
                        figures |= {"ours_rows_s": round(arguments.updates / took), **more}
                figures["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
                print(json.dumps(figures), flush=True)
        await by_native.connection.execute("ALTER SUBSCRIPTION bench SET (slot_name = NONE); DROP SUBSCRIPTION bench")
        await drop_slot(source.dsn, "bench_native")
        await drop_slot(source.dsn, "bench_ours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=200_000)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streaming", action="store_true")
    parser.add_argument("--dsn")
    arguments = parser.parse_args()
    if arguments.dsn:
        asyncio.run(run(arguments.dsn, arguments))
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder), "postgres-1", durable=False, settings={"max_wal_size": "8GB"}) as server,
    ):
        Path(folder).chmod(0o711)
        asyncio.run(run(server.dsn(), arguments))


if __name__ == "__main__":
    main()
