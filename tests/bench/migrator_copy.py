"""Copies the rows of one tenant, with two secondary indexes and the primary key, out of a table of twice that size into
another database of the same server, by turns with

- Strata's copier, indexes and constraints built afterwards (`parallel`: two workers; `single`: one);
- a native subscription with a row filter, into a table that has its indexes;
- pgcopydb, which knows no row filter: it is given a table that holds the tenant's rows alone, so it reads half as much.

Every side ends with the same rows and the same indexes, which is checked.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from strata.migrator.copier import Copier
from strata.migrator.indexes import build
from strata.migrator.tables import Home, describe
from strata.migrator.target import Target
from strata.platform.database.addresses import parse
from strata.platform.embedded import EmbeddedPostgres
from strata.platform.embedded.postgres import programs
from strata.tenancy.model import Tier
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.ground import Ground
from tests.bench.tables import Table

TENANT = UUID("0192a000-0000-7000-8000-00000000000a")
NEIGHBOUR = UUID("0192a000-0000-7000-8000-00000000000b")
WORKERS = 2
BOTH, ALONE = "copy_source", "copy_source_alone"
PATIENCE_S = 300.0


class Plan(msgspec.Struct, frozen=True):
    rows: int = 1_000_000
    rounds: int = 4


TABLE = """
CREATE TABLE {schema}.goods (
    tenant_id uuid NOT NULL, id uuid NOT NULL DEFAULT uuidv7(), sku text COLLATE "C" NOT NULL, name text NOT NULL,
    quantity bigint NOT NULL, attributes jsonb NOT NULL DEFAULT '{{}}', created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now());
"""
INDEXES = """
ALTER TABLE {schema}.goods ADD CONSTRAINT pk_goods PRIMARY KEY (tenant_id, id);
CREATE UNIQUE INDEX uq_goods_sku ON {schema}.goods (tenant_id, sku);
CREATE INDEX ix_goods_quantity ON {schema}.goods (tenant_id, quantity, id);
"""


class Databases:
    """Source and target databases of one server."""

    def __init__(self, server: EmbeddedPostgres, rows: int) -> None:
        self._server = server
        self.rows = rows

    def dsn(self, database: str) -> str:
        return self._server.dsn(database)

    async def execute(self, database: str, *statements: str) -> None:
        connection = await asyncpg.connect(self.dsn(database))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def make_sources(self) -> None:
        for database, tenants in ((BOTH, (TENANT, NEIGHBOUR)), (ALONE, (TENANT,))):
            values = ", ".join(f"('{tenant}'::uuid)" for tenant in tenants)
            await self.execute("postgres", f"CREATE DATABASE {database} TEMPLATE template0")
            await self.execute(
                database,
                "CREATE SCHEMA shared",
                TABLE.format(schema="shared"),
                "INSERT INTO shared.goods (tenant_id, sku, name, quantity, attributes)"
                " SELECT t, 'SKU-' || md5(i::text), 'Product number ' || i, i % 1000, jsonb_build_object('colour', i % 7, 'size', 'x' || i % 13)"
                f" FROM generate_series(1, {self.rows}) i, (VALUES {values}) v (t) ORDER BY i",
                INDEXES.format(schema="shared"),
                "VACUUM ANALYZE shared.goods",
            )

    async def new_target(self, schema: str | None) -> str:
        name = f"copy_target_{secrets.token_hex(3)}"
        await self.execute("postgres", f"CREATE DATABASE {name} TEMPLATE template0")
        if schema is not None:
            await self.execute(
                name, f"CREATE SCHEMA {schema}", TABLE.format(schema=schema), INDEXES.format(schema=schema)
            )
        await self.execute("postgres", "CHECKPOINT")
        return name

    async def check_and_drop(self, name: str, schema: str) -> None:
        connection = await asyncpg.connect(self.dsn(name))
        try:
            rows = await connection.fetchval(f"SELECT count(*) FROM {schema}.goods WHERE tenant_id = $1", TENANT)
            indexes = await connection.fetchval("SELECT count(*) FROM pg_indexes WHERE schemaname = $1", schema)
        finally:
            await connection.close()
        if (rows, indexes) != (self.rows, 3):
            message = f"{name} ended with {rows} rows and {indexes} indexes"
            raise RuntimeError(message)
        await self.execute("postgres", f"DROP DATABASE {name} WITH (FORCE)")


async def strata(databases: Databases, workers: int) -> dict[str, float]:
    target_name = await databases.new_target("main")
    source = Home(TENANT, BOTH, Tier.SHARED, "shared", parse(databases.dsn(BOTH)))
    target = Home(TENANT, target_name, Tier.DEDICATED, "main", parse(databases.dsn(target_name)))
    origins = [f"bench_{number}" for number in range(workers)]
    connection = await asyncpg.connect(databases.dsn(BOTH))
    try:
        begun = time.perf_counter()
        tables = await describe(connection, "shared")
        await Target(target).strip()
        async with connection.transaction(isolation="repeatable_read"):
            snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
            copied = await Copier(source, target, tables, snapshot=snapshot, origins=origins).run()
        built = await build(target, tables, workers=workers)
        seconds = time.perf_counter() - begun
    finally:
        await connection.close()
    await databases.check_and_drop(target_name, "main")
    return {"seconds": seconds, "copy_s": copied.seconds, "build_s": built.seconds}


async def native(databases: Databases) -> dict[str, float]:
    target = await databases.new_target("shared")
    name = f"bench_{secrets.token_hex(3)}"
    await databases.execute(
        BOTH,
        f"CREATE PUBLICATION {name} FOR TABLE shared.goods WHERE (tenant_id = '{TENANT}')",
        # Within one cluster a subscription that makes its own slot hangs.
        f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')",
    )
    connection = await asyncpg.connect(databases.dsn(target))
    try:
        begun = time.perf_counter()
        await connection.execute(
            f"CREATE SUBSCRIPTION {name} CONNECTION '{databases.dsn(BOTH)}' PUBLICATION {name}"
            f" WITH (create_slot = false, slot_name = '{name}', copy_data = true)"
        )
        while not await connection.fetchval("SELECT bool_and(srsubstate IN ('s', 'r')) FROM pg_subscription_rel"):
            if time.perf_counter() - begun > PATIENCE_S:
                message = "the subscription did not become ready"
                raise TimeoutError(message)
            await asyncio.sleep(0.05)
        seconds = time.perf_counter() - begun
        await connection.execute(f"ALTER SUBSCRIPTION {name} DISABLE")
        await connection.execute(f"ALTER SUBSCRIPTION {name} SET (slot_name = NONE)")
        await connection.execute(f"DROP SUBSCRIPTION {name}")
    finally:
        await connection.close()
    await asyncio.sleep(1)
    await databases.execute(BOTH, f"SELECT pg_drop_replication_slot('{name}')", f"DROP PUBLICATION {name}")
    await databases.check_and_drop(target, "shared")
    return {"seconds": seconds}


async def pgcopydb(databases: Databases) -> dict[str, float]:
    """With PostgreSQL's own pg_dump on PATH, since Debian's is older than the server."""
    target = await databases.new_target(None)
    with TemporaryDirectory() as directory:
        command = ["pgcopydb", "clone", "--source", databases.dsn(ALONE), "--target", databases.dsn(target)]
        command += ["--dir", f"{directory}/work", "--table-jobs", str(WORKERS), "--index-jobs", str(WORKERS)]
        command += ["--split-tables-larger-than", "50MB", "--skip-large-objects", "--no-owner", "--no-acl"]
        begun = time.perf_counter()
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            env={**os.environ, "PATH": f"{programs()}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    await databases.check_and_drop(target, "shared")
    return {"seconds": seconds}


def sides() -> Mapping[str, Callable[[Databases], Awaitable[dict[str, float]]]]:
    found: dict[str, Callable[[Databases], Awaitable[dict[str, float]]]] = {
        "strata parallel": lambda databases: strata(databases, WORKERS),
        "strata single": lambda databases: strata(databases, 1),
        "native subscription": native,
    }
    if shutil.which("pgcopydb"):
        found["pgcopydb"] = pgcopydb
    return found


async def _measure(ground: Ground, plan: Plan) -> dict[str, Any]:
    databases = Databases(ground.postgres, plan.rows)
    await databases.make_sources()
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in sides()}
    for _ in range(plan.rounds):
        for name, side in sides().items():
            measured[name].append({key: round(value, 2) for key, value in (await side(databases)).items()})
    return {"rows": plan.rows, "table_rows": 2 * plan.rows, "rounds": measured}


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    return asyncio.run(_measure(stand.ground, plan))


def tables(found: dict[str, Any]) -> list[Table]:
    """Ratios of neighbouring measurements, as everywhere."""
    rounds: dict[str, list[dict[str, float]]] = found["rounds"]
    ours, *_ = rounds
    rows = [[f"{found['rows']:,} of {found['table_rows']:,} rows", "seconds", "rows/s", f"times {ours}"]]
    for name, each in rounds.items():
        seconds = median(one["seconds"] for one in each)
        times = median(one["seconds"] / base["seconds"] for one, base in zip(each, rounds[ours], strict=True))
        rows.append([name, f"{seconds:.1f}", f"{found['rows'] / seconds:,.0f}", f"{times:.2f}"])
    return [Table(rows)]


BENCHMARK = Benchmark("migrator-copy", run, tables, plan=Plan(), quick=Plan(rows=100_000, rounds=1))
