"""python -m tests.bench.jobs: jobs a second, Strata's worker beside bare Procrastinate, on one PostgreSQL.

Each side has a backlog of jobs that do nothing and one worker process, in turns; measured from the first job taken to the
last one finished. Bare: Procrastinate's own worker on its own schema, as `pip install` gives it. Strata: the fair fetch,
the tenant's context and the log line, over 20 tenants that share evenly; once more with a tenant transaction in each job.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import time
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import msgspec
import structlog
from procrastinate import App, PsycopgConnector
from procrastinate.schema import SchemaManager
from sqlalchemy import text

from strata.platform.database import addresses
from strata.platform.settings import JobSettings, Settings
from strata.runtime import Runtime, open_runtime
from strata.tenancy.jobs import TenantJob, tenant_job
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.servers import add_server
from strata.tenancy.provisioning.tenants import NewTenant
from strata.worker import open_worker
from tests.bench import machine, report
from tests.bench.ground import Ground, ground

JOBS = 1000
TENANTS = 20
CONCURRENCY = 10
ROUNDS = 5
_UNFINISHED = "SELECT count(*) FROM jobs.procrastinate_jobs WHERE status IN ('todo', 'doing')"


class Nothing(msgspec.Struct, frozen=True):
    number: int


@tenant_job("bench.nothing")
async def nothing(job: TenantJob, arguments: Nothing) -> None: ...


@tenant_job("bench.read")
async def read(job: TenantJob, arguments: Nothing) -> None:
    async with job.tenants.transaction(job.context) as session:
        await session.execute(text("SELECT 1"))


async def bare(stage: Ground) -> float:
    connector = PsycopgConnector(conninfo=stage.dsn("bare"), max_size=CONCURRENCY)
    app = App(connector=connector)

    @app.task(name="bench.nothing")
    async def empty(number: int) -> None: ...

    async with app.open_async():
        await empty.batch_defer_async(*[dict[str, Any](number=number) for number in range(JOBS)])
        began = time.perf_counter()
        await app.run_worker_async(concurrency=CONCURRENCY, wait=False, install_signal_handlers=False)
        return JOBS / (time.perf_counter() - began)


async def strata(runtime: Runtime, stage: Ground, tenants: list[Any], declaration: Any) -> float:  # noqa: ANN401
    each = JOBS // len(tenants)
    for tenant in tenants:
        await runtime.jobs.defer_many(declaration, tenant.id, [Nothing(number) for number in range(each)])
    settings = JobSettings(concurrency=CONCURRENCY, pool_size=CONCURRENCY)
    worker = open_worker(runtime, settings, jobs=(nothing, read))
    connection = await asyncpg.connect(stage.dsn("catalog"))
    began = time.perf_counter()
    running = asyncio.create_task(worker.run())
    while await connection.fetchval(_UNFINISHED):  # noqa: ASYNC110 - the worker says nothing
        await asyncio.sleep(0.02)
    rate = JOBS / (time.perf_counter() - began)
    worker.stop()
    await running
    await connection.close()
    return rate


async def measure(stage: Ground, rounds: int) -> dict[str, list[float]]:
    for name in ("bare", "catalog"):
        await stage.make_database(name)
    connector = PsycopgConnector(conninfo=stage.dsn("bare"))
    async with App(connector=connector).open_async():
        await SchemaManager(connector).apply_schema_async()
    settings = Settings(
        database_url=stage.dsn("catalog"),  # type: ignore[arg-type]
        redis_url=stage.redis.url,  # type: ignore[arg-type]
        data_dir=stage.directory,
        role_prefix="jobsbench",
    )
    found: dict[str, list[float]] = {"Procrastinate": [], "Strata": [], "Strata, a transaction in each": []}
    async with open_runtime(settings, upgrade=True) as runtime:
        await add_server(
            runtime.registry, "main", addresses.parse(stage.dsn("postgres")),
            region="local", role_prefix="jobsbench", actor="bench",
        )  # fmt: skip
        await runtime.cells.add_shared("cell", "main", actor="bench")
        tenants = [
            await runtime.provisioning.create(NewTenant(f"bench-{n}", "Bench", Tier.SHARED, plan="business"), "bench")
            for n in range(TENANTS)
        ]
        for _ in range(rounds):
            found["Procrastinate"].append(await bare(stage))
            found["Strata"].append(await strata(runtime, stage, tenants, nothing))
            found["Strata, a transaction in each"].append(await strata(runtime, stage, tenants, read))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.jobs", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=report.DIRECTORY)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    facts = machine.facts(None)
    with ground() as stage:
        found = asyncio.run(measure(stage, given.rounds))
    ratios = [ours / theirs for ours, theirs in zip(found["Strata"], found["Procrastinate"], strict=True)]
    medians = {name: median(rates) for name, rates in found.items()}
    results = {"jobs_per_s": found, "median": medians, "ratio": ratios}
    plan = {"jobs": JOBS, "tenants": TENANTS, "concurrency": CONCURRENCY, "rounds": given.rounds}
    print(json.dumps(medians | {"Strata / Procrastinate": median(ratios)}, indent=1))
    print(f"Raw results: {report.save('jobs', facts, plan, results, given.out)}")


if __name__ == "__main__":
    main()
