"""Jobs a second, Strata's worker beside bare Procrastinate, on one PostgreSQL.

Each side has the same backlog of jobs that do nothing and one worker with as many connections. What is timed is the same
on both: Procrastinate's own events in the database, from the first job's start to the last one's end. How long a worker
takes to start and to stop is in neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from statistics import median
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from procrastinate import App, PsycopgConnector
from procrastinate.schema import SchemaManager
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import text

from strata.platform.ids import new_id
from strata.platform.jobs.declaration import Queue
from strata.platform.jobs.envelope import Envelope
from strata.platform.jobs.scheduler import queue_name
from strata.platform.jobs.store import NewJob
from strata.platform.settings import JobSettings
from strata.runtime import Runtime
from strata.tenancy.jobs import TenantJob, tenant_job
from strata.tenancy.model import Tier
from strata.tenancy.plans import plan_named
from strata.tenancy.provisioning.tenants import NewTenant
from strata.worker import open_worker
from tests.bench import strata_side
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.ground import Ground
from tests.bench.tables import Table

INSTALLED, BASE = "Procrastinate, as installed", "Procrastinate, connections unchecked"
_BARE = "bench_procrastinate"
_TENANT_PLAN = "business"
_ATTEMPTS = 5
_PATIENCE_S = 300
_UNFINISHED = "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
_LAST = "SELECT coalesce(max(id), 0) FROM procrastinate_jobs"
_WINDOW = """
    SELECT count(*) FILTER (WHERE type = 'succeeded') AS succeeded,
           extract(epoch FROM max(at) FILTER (WHERE type = 'succeeded')
                            - min(at) FILTER (WHERE type = 'started'))::float AS seconds
    FROM procrastinate_events WHERE job_id > $1
"""


class Plan(msgspec.Struct, frozen=True):
    rounds: int = 5
    jobs: int = 2000
    tenants: int = 20
    concurrency: int = 10


class JobsLostError(Exception):
    """Not every job of the backlog succeeded: what was timed was not the work."""


class Nothing(msgspec.Struct, frozen=True):
    number: int


@tenant_job("bench.nothing")
async def nothing(job: TenantJob, arguments: Nothing) -> None: ...


@tenant_job("bench.read")
async def read(job: TenantJob, arguments: Nothing) -> None:
    async with job.tenants.transaction(job.context) as session:
        await session.execute(text("SELECT 1"))


Work = Callable[[], Awaitable[None]]


class _Queue:
    """Procrastinate's tables of one side, and what they say of when the work was done."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def rate(self, jobs: int, work: Work) -> float:
        """`work` queues that many jobs and returns when a worker has done them."""
        last = await self._connection.fetchval(_LAST)
        await work()
        [window] = await self._connection.fetch(_WINDOW, last)
        if window["succeeded"] != jobs:
            message = f"{window['succeeded']} of {jobs} jobs succeeded"
            raise JobsLostError(message)
        return float(jobs / window["seconds"])

    async def emptied(self) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while await self._connection.fetchval(_UNFINISHED):  # noqa: ASYNC110 - the workers say nothing
                await asyncio.sleep(0.05)


class _Bare:
    def __init__(self, ground: Ground, queue: _Queue, plan: Plan) -> None:
        self._dsn = ground.dsn(_BARE)
        self._queue = queue
        self._plan = plan

    async def work(self, pool_factory: Callable[..., AsyncConnectionPool]) -> None:
        connector = PsycopgConnector(
            conninfo=self._dsn, min_size=1, max_size=self._plan.concurrency, pool_factory=pool_factory
        )
        app = App(connector=connector)

        @app.task(name="bench.nothing")
        async def empty(number: int) -> None: ...

        async with app.open_async():
            await empty.batch_defer_async(*[dict[str, Any](number=number) for number in range(self._plan.jobs)])
            working = asyncio.create_task(
                app.run_worker_async(concurrency=self._plan.concurrency, install_signal_handlers=False)
            )
            await self._queue.emptied()
            working.cancel()
            await asyncio.wait([working])


class _Strata:
    def __init__(self, runtime: Runtime, queue: _Queue, tenants: Sequence[UUID], plan: Plan) -> None:
        self._runtime = runtime
        self._queue = queue
        self._tenants = tenants
        self._plan = plan

    async def work(self, name: str, share: int | None) -> None:
        jobs = [self._job(name, number, share) for number in range(self._plan.jobs)]
        await self._runtime.jobs.store.insert(jobs)
        settings = JobSettings(concurrency=self._plan.concurrency, pool_size=self._plan.concurrency)
        worker = open_worker(self._runtime, settings, jobs=(nothing, read))
        working = asyncio.create_task(worker.run())
        await self._queue.emptied()
        worker.stop()
        await working

    def _job(self, name: str, number: int, share: int | None) -> NewJob:
        owner = str(self._tenants[number % len(self._tenants)])
        envelope = Envelope(owner, str(new_id()), _ATTEMPTS, share, arguments={"number": number})
        return NewJob(queue_name(Queue.DEFAULT, None), name, envelope)


async def _measure(ground: Ground, plan: Plan) -> dict[str, list[float]]:
    await _make_bare(ground)
    async with strata_side.standing(ground) as runtime:
        tenants = [
            await runtime.provisioning.create(
                NewTenant(f"bench-{number}", "Bench", Tier.SHARED, plan=_TENANT_PLAN), strata_side.ACTOR
            )
            for number in range(plan.tenants)
        ]
        beside = await asyncpg.connect(ground.dsn(_BARE))
        inside = await asyncpg.connect(ground.dsn(strata_side.CATALOG), server_settings={"search_path": "jobs"})
        bare_queue, strata_queue = _Queue(beside), _Queue(inside)
        bare = _Bare(ground, bare_queue, plan)
        strata = _Strata(runtime, strata_queue, [tenant.id for tenant in tenants], plan)
        share = plan_named(_TENANT_PLAN).jobs.concurrency
        sides: dict[str, tuple[_Queue, Work]] = {
            INSTALLED: (bare_queue, lambda: bare.work(AsyncConnectionPool)),
            BASE: (bare_queue, lambda: bare.work(_unchecked)),
            "Strata, shares without limit": (strata_queue, lambda: strata.work(nothing.name, None)),
            f"Strata, {share} of a tenant at once": (strata_queue, lambda: strata.work(nothing.name, share)),
            f"Strata, {share} of a tenant at once, a transaction in each": (
                strata_queue,
                lambda: strata.work(read.name, share),
            ),
        }
        found: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(plan.rounds):
            names = list(sides)
            for name in [*names[number % len(names) :], *names[: number % len(names)]]:
                queue, work = sides[name]
                found[name].append(await queue.rate(plan.jobs, work))
        for connection in (beside, inside):
            await connection.close()
    return found


async def _make_bare(ground: Ground) -> None:
    await ground.make_database(_BARE)
    connector = PsycopgConnector(conninfo=ground.dsn(_BARE))
    async with App(connector=connector).open_async():
        await SchemaManager(connector).apply_schema_async()


def _unchecked(**arguments: Any) -> AsyncConnectionPool:  # noqa: ANN401 - whatever Procrastinate gives its pool
    """As Strata has it: a dead connection is met once, and costs no round trip before each statement."""
    return AsyncConnectionPool(**{**arguments, "check": None})


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    rates = asyncio.run(_measure(stand.ground, plan))
    return {
        name: {
            "jobs_per_s": [round(rate) for rate in each],
            "median": round(median(each)),
            "times": round(median(ours / theirs for ours, theirs in zip(each, rates[BASE], strict=True)), 3),
        }
        for name, each in rates.items()
    }


def tables(found: dict[str, Any]) -> list[Table]:
    rows = [["", "jobs/s", f"times {BASE}"]]
    rows += [[name, f"{each['median']:,}", f"{each['times']:.2f}"] for name, each in found.items()]
    return [Table(rows)]


BENCHMARK = Benchmark("jobs", run, tables, plan=Plan(), quick=Plan(rounds=2, jobs=500))
