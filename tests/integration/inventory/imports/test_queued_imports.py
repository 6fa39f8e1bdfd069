"""Imports by workers: killed, cancelled, two at once, held read-only, failing. No row lost, none doubled."""

from __future__ import annotations

import asyncio
import gzip
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from sqlalchemy import delete, func, select, text, update

from strata.app import StrataApp
from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.jobs import plan_import
from strata.inventory.imports.mapping import packaged
from strata.inventory.imports.models import ImportBatch
from strata.inventory.imports.runner import ImportRunner
from strata.inventory.imports.schemas import ImportOptions
from strata.inventory.locations.models import Bin
from strata.platform.jobs.store import JobFilter, JobState, JobView
from strata.platform.settings import ImportSettings
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import TenantStatus, Tier
from tests.builders.command import clean_environment, environment_for
from tests.builders.imports import Books, books
from tests.builders.inventory import api_client
from tests.builders.jobs import ended, working
from tests.builders.platform import Platform, Tenantry, admin_of, second_process
from tests.builders.queued_imports import ENDED_S, importing, seen, upload

ROWS = 800
_CHANCE = random.Random(23)
# Invoices of a few lines, with rows among them that are refused.
FILE = (
    "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID\n"
    + "".join(
        f"{n // 3},{_CHANCE.choice(['POST', *(f's{k}' for k in range(40))])},N,"
        f"{'x' if _CHANCE.random() < 0.02 else _CHANCE.randint(1, 9)},2010-12-01 08:26:00,1,1\n"
        for n in range(ROWS)
    )
).encode()
RETAIL = {"mapping": "online-retail", "opening_stock": "true"}
SMALL_BATCHES = ImportSettings(batch_rows=50, most_share=1, least_share=1)


_LOST = text(
    "UPDATE jobs.procrastinate_jobs SET status = 'doing', worker_id = NULL"
    " WHERE args ->> 'owner' = :owner AND status = 'todo' RETURNING id"
)
_TWICE_BEFORE = text(
    "INSERT INTO jobs.job_trouble (job_id, lost, code, detail) SELECT id, 2, 'worker-lost', '' FROM unnest(CAST(:jobs AS bigint[])) AS id"
)


@pytest.fixture(scope="module")
async def slow(runtime: Runtime) -> AsyncIterator[Runtime]:
    """A process whose batches are so small that one can catch an import in the midst of them."""
    async with second_process(runtime, imports=SMALL_BATCHES) as other:
        yield other


@pytest.fixture(scope="module")
async def wanted(runtime: Runtime, tenant_on: Tenantry, tmp_path_factory: pytest.TempPathFactory) -> Books:
    """What one undisturbed import by the command makes of an empty tenant."""
    context = await tenant_on(Tier.SHARED)
    path: Path = tmp_path_factory.mktemp("wanted") / "sales.csv"
    path.write_bytes(FILE)
    runner = ImportRunner(runtime.tenants, context)
    await runner.run(SourceFile(path), packaged("online-retail"), ImportOptions(opening_stock=True), actor="tests")
    return await books(runtime, context)


@asynccontextmanager
async def uploaded(
    app: StrataApp, runtime: Runtime, context: TenantContext
) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    async with api_client(app, runtime, context) as client:
        answer = await upload(client, FILE, **RETAIL)
        assert answer.status_code == 202, answer.text
        yield client, answer.headers["Location"]


@asynccontextmanager
async def worker_process(platform: Platform) -> AsyncIterator[asyncio.subprocess.Process]:
    brisk = {
        "STRATA_JOBS__HEARTBEAT_S": "0.2",
        "STRATA_JOBS__STALLED_AFTER_S": "1.5",
        "STRATA_JOBS__POLL_S": "0.2",
        "STRATA_JOBS__TICK_S": "0.2",
        "STRATA_IMPORTS__BATCH_ROWS": "50",
        "STRATA_IMPORTS__MOST_SHARE": "1",
        "STRATA_IMPORTS__LEAST_SHARE": "1",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "strata", "worker", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=clean_environment({**environment_for(platform), **brisk}),
    )
    assert process.stdout is not None
    draining: asyncio.Task[bytes] | None = None
    try:
        async for line in process.stdout:
            if b'"ready"' in line:
                break
        draining = asyncio.create_task(process.stdout.read())
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if draining is not None:
            await draining


@pytest.mark.slow
@pytest.mark.parametrize("tier", Tier)
async def test_undisturbed_it_ends_as_by_the_command(
    runtime: Runtime, slow: Runtime, inventory_app: StrataApp, tenant_on: Tenantry, wanted: Books, tier: Tier
) -> None:
    context = await tenant_on(tier)
    async with importing(slow), uploaded(inventory_app, runtime, context) as (client, address):
        midway = await seen(client, address, lambda run: run["rows_read"] > ROWS // 4)
        run = await seen(client, address)
    assert midway["rows_total"] == ROWS
    assert midway["expected_at"] is not None
    assert (run["state"], run["expected_at"], run["failure"]) == ("done", None, None)
    assert run["rows_read"] == run["lines_accepted"] + run["lines_refused"] == ROWS
    assert await books(runtime, context) == wanted


async def test_with_its_workers_killed_no_row_is_lost_or_doubled(
    runtime: Runtime, platform: Platform, inventory_app: StrataApp, tenant_on: Tenantry, wanted: Books
) -> None:
    context = await tenant_on(Tier.SCHEMA)
    reached: list[int] = []
    async with uploaded(inventory_app, runtime, context) as (client, address):
        for stop_at in (1, ROWS // 2):
            async with worker_process(platform) as worker:
                found = await seen(client, address, lambda run, rows=stop_at: run["rows_read"] >= rows)  # type: ignore[misc]
                await asyncio.sleep(_CHANCE.uniform(0, 0.03))
                worker.kill()
                await worker.wait()
            reached.append(found["rows_read"])
        async with worker_process(platform):
            run = await seen(client, address)
    assert reached[0] < reached[1] < ROWS
    assert (run["state"], run["rows_read"]) == ("done", ROWS)
    assert await books(runtime, context) == wanted


async def test_cancelled_midway_nothing_more_is_posted_and_the_same_file_goes_on_there(
    runtime: Runtime, slow: Runtime, inventory_app: StrataApp, tenant_on: Tenantry, wanted: Books
) -> None:
    context = await tenant_on(Tier.SHARED)
    async with importing(slow), uploaded(inventory_app, runtime, context) as (client, address):
        await seen(client, address, lambda run: run["rows_read"] > ROWS // 4)
        cancelled = await client.post(f"{address}/cancel")
        assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
        at = cancelled.json()["rows_read"]
        assert ROWS // 4 < at < ROWS
        await asyncio.sleep(0.5)
        still = (await client.get(address)).json()
        assert (still["state"], still["rows_read"]) == ("cancelled", at)
        assert (await client.post(f"{address}/cancel")).json() == still
        assert (await client.post(f"{address}/resume")).json()["code"] == "import-not-resumable"
        async with runtime.tenants.reading(context) as session:
            kept = "SELECT (SELECT count(*) FROM import_chunk) + (SELECT count(*) FROM import_batch)"
            assert await session.scalar(text(kept)) == 0

        again = await upload(client, FILE, **RETAIL)
        assert (again.status_code, again.headers["Location"]) == (202, address)
        run = await seen(client, address)
        assert (run["state"], run["rows_read"]) == ("done", ROWS)
        done = await client.post(f"{address}/cancel")
        assert (done.status_code, done.json()["code"]) == (409, "import-done")
    assert await books(runtime, context) == wanted


async def test_cancelled_before_any_worker_came(
    runtime: Runtime, inventory_app: StrataApp, tenant_on: Tenantry
) -> None:
    context = await tenant_on(Tier.SHARED)
    async with uploaded(inventory_app, runtime, context) as (client, address):
        assert (await client.post(f"{address}/cancel")).json()["state"] == "cancelled"
        async with importing(runtime):
            await asyncio.sleep(1)
        assert (await client.get(address)).json()["rows_read"] == 0


async def test_cancelled_while_it_is_read_the_worker_is_free_again(
    runtime: Runtime, inventory_app: StrataApp, tenant_on: Tenantry
) -> None:
    context = await tenant_on(Tier.SHARED)
    # A few kilobytes, and minutes to read.
    packed = gzip.compress(b"sku,name,quantity\n" + b"s,N,1\n" * 15_000_000, compresslevel=1)
    async with working(runtime, jobs=(plan_import,)), api_client(inventory_app, runtime, context) as client:
        address = (await upload(client, packed)).headers["Location"]
        job = await _found(runtime, context, JobState.RUNNING)
        assert (await client.post(f"{address}/cancel")).json()["state"] == "cancelled"
        assert (await ended(runtime, job.id)).state is JobState.SUCCEEDED


@pytest.mark.slow
async def test_of_two_workers_each_batch_is_posted_by_one(
    runtime: Runtime, slow: Runtime, inventory_app: StrataApp, tenant_on: Tenantry, wanted: Books
) -> None:
    context = await tenant_on(Tier.DEDICATED)
    async with importing(slow, workers=2), uploaded(inventory_app, runtime, context) as (client, address):
        for _ in range(20):
            # Whoever sets it going again, and however often, it is one import.
            assert (await client.post(f"{address}/resume")).status_code in {202, 409}
            await asyncio.sleep(0.03)
        run = await seen(client, address)
    assert (run["state"], run["rows_read"]) == ("done", ROWS)
    assert await books(runtime, context) == wanted


async def test_held_read_only_midway_it_waits_and_then_goes_on(
    runtime: Runtime, slow: Runtime, inventory_app: StrataApp, tenant_on: Tenantry, wanted: Books
) -> None:
    context = await tenant_on(Tier.SHARED)
    async with importing(slow), uploaded(inventory_app, runtime, context) as (client, address):
        await seen(client, address, lambda run: run["rows_read"] > ROWS // 4)
        await runtime.directory.set_status(context.slug, TenantStatus.READ_ONLY, "unpaid", "tests")
        await asyncio.sleep(0.5)
        held = (await client.get(address)).json()
        await asyncio.sleep(1)
        assert (await client.get(address)).json() == held
        assert (held["state"], held["rows_read"] < ROWS) == ("running", True)
        assert (await client.post(f"{address}/cancel")).status_code == 403
        await runtime.directory.set_status(context.slug, TenantStatus.ACTIVE, None, "tests")
        run = await seen(client, address)
    assert (run["state"], run["rows_read"]) == ("done", ROWS)
    assert await books(runtime, context) == wanted


async def test_what_a_person_has_to_mend_is_said_and_then_it_is_resumed(
    runtime: Runtime, slow: Runtime, inventory_app: StrataApp, tenant_on: Tenantry, wanted: Books
) -> None:
    context = await tenant_on(Tier.SHARED)
    async with importing(slow), uploaded(inventory_app, runtime, context) as (client, address):
        await seen(client, address)
    other = await tenant_on(Tier.SHARED)
    async with api_client(inventory_app, runtime, other) as client:
        # A first import makes the bin, which is then out of use.
        first = await upload(client, FILE.split(b"\n", 2)[0] + b"\n", **RETAIL)
        async with importing(slow):
            assert (await seen(client, first.headers["Location"]))["state"] == "done"
            async with runtime.tenants.transaction(other) as session:
                await session.execute(update(Bin).values(active=False))
            answer = await upload(client, FILE, **RETAIL)
            failed = await seen(client, answer.headers["Location"])
            assert (failed["state"], failed["rows_read"]) == ("failed", 0)
            assert "activate it" in failed["failure"]
            async with runtime.tenants.transaction(other) as session:
                await session.execute(update(Bin).values(active=True))
            resumed = await client.post(f"{answer.headers['Location']}/resume")
            assert (resumed.status_code, resumed.json()["state"]) == (202, "pending")
            run = await seen(client, answer.headers["Location"])
    assert (run["state"], run["failure"]) == ("done", None)
    assert await books(runtime, other) == wanted


@pytest.mark.slow
async def test_planned_by_two_at_once_no_part_is_missing(
    runtime: Runtime, inventory_app: StrataApp, tenant_on: Tenantry
) -> None:
    """The first has left some of its batches when the second drops them, and is done before the second has any."""
    context = await tenant_on(Tier.SCHEMA)
    rows = 60_000
    content = "sku,name,quantity\n" + "".join(f"s{n % 50},{'N' * 150},1\n" for n in range(rows))
    batches = "SELECT count(*) AS number, min(number) AS first, max(number) AS last FROM import_batch"
    # It posts nothing: what is planned can be looked at.
    async with working(runtime, jobs=(plan_import,)), api_client(inventory_app, runtime, context) as client:
        address = (await upload(client, content.encode())).headers["Location"]
        await _planning(runtime, context)
        assert (await client.post(f"{address}/resume")).json()["state"] == "pending"
        await seen(client, address, lambda run: run["state"] == "running")
    async with runtime.tenants.reading(context) as session:
        planned = (await session.execute(text(batches))).one()
        contents = await session.scalars(select(ImportBatch.content))
        planned_rows = sum(msgspec.msgpack.decode(each)["rows"]["rows"] for each in contents)
    assert (planned.first, planned.last) == (0, planned.number - 1)
    assert planned_rows == rows


async def _planning(runtime: Runtime, context: TenantContext) -> None:
    """Until there are batches, and more to come."""
    async with asyncio.timeout(ENDED_S):
        while True:
            async with runtime.tenants.reading(context) as session:
                if await session.scalar(select(func.count(ImportBatch.number))):
                    return
            await asyncio.sleep(0.01)


async def test_a_part_that_is_missing_is_never_passed_over(
    runtime: Runtime, slow: Runtime, inventory_app: StrataApp, tenant_on: Tenantry, wanted: Books
) -> None:
    context = await tenant_on(Tier.SHARED)
    async with uploaded(inventory_app, runtime, context) as (client, address):
        async with working(slow, jobs=(plan_import,)):
            await seen(client, address, lambda run: run["state"] == "running")
        async with runtime.tenants.transaction(context) as session:
            await session.execute(delete(ImportBatch).where(ImportBatch.number == 5))
        async with importing(slow):
            failed = await seen(client, address)
            assert (failed["state"], failed["rows_read"] < ROWS) == ("failed", True)
            assert "send the file again" in failed["failure"]
            await client.post(f"{address}/cancel")
            await upload(client, FILE, **RETAIL)
            assert (await seen(client, address))["rows_read"] == ROWS
    assert await books(runtime, context) == wanted


@pytest.mark.slow
async def test_having_been_put_off_often_it_may_still_fail_as_often_as_others(
    runtime: Runtime, slow: Runtime, inventory_app: StrataApp, tenant_on: Tenantry, wanted: Books
) -> None:
    context = await tenant_on(Tier.SCHEMA)
    schema = context.placement.schema_name
    async with importing(slow), uploaded(inventory_app, runtime, context) as (client, address):
        await seen(client, address, lambda run: run["rows_read"] > ROWS // 4)
        async with admin_of(runtime, context.placement.cell) as admin:
            await runtime.directory.set_status(context.slug, TenantStatus.READ_ONLY, "unpaid", "tests")
            job = await _found(runtime, context, JobState.WAITING, lambda job: bool(job.put_off))
            async with runtime.catalog_engine.begin() as catalog:
                often = "UPDATE jobs.procrastinate_jobs SET attempts = 20 WHERE id = :id"
                await catalog.execute(text(often), {"id": job.id})
            await admin.execute(f"ALTER TABLE {schema}.import_batch RENAME TO away")
            await runtime.directory.set_status(context.slug, TenantStatus.ACTIVE, None, "tests")
            await _found(runtime, context, JobState.WAITING, lambda job: bool(job.failures))
            await admin.execute(f"ALTER TABLE {schema}.away RENAME TO import_batch")
        assert (await client.get(address)).json()["state"] == "running"
        assert (await seen(client, address))["state"] == "done"
    assert await books(runtime, context) == wanted


@pytest.mark.parametrize("stage", [pytest.param("plan", marks=pytest.mark.slow), "batch"])
async def test_an_import_whose_job_is_dead_says_so_and_can_be_resumed(
    runtime: Runtime, slow: Runtime, inventory_app: StrataApp, tenant_on: Tenantry, wanted: Books, stage: str
) -> None:
    """Its workers were lost with it, again and again: no handler of its own could say a word."""
    context = await tenant_on(Tier.SHARED)
    async with uploaded(inventory_app, runtime, context) as (client, address):
        if stage == "batch":
            async with working(slow, jobs=(plan_import,)):
                await seen(client, address, lambda run: run["state"] == "running")
        else:
            async with working(slow, jobs=()):
                await _found(runtime, context, JobState.WAITING)
        async with runtime.catalog_engine.begin() as catalog:
            lost = await catalog.execute(_LOST, {"owner": str(context.id)})
            await catalog.execute(_TWICE_BEFORE, {"jobs": [row.id for row in lost]})
        async with importing(slow):
            failed = await seen(client, address)
            assert failed["state"] == "failed"
            assert "died or fell silent" in failed["failure"]
            assert (await client.post(f"{address}/resume")).status_code == 202
            assert (await seen(client, address))["state"] == "done"
    assert await books(runtime, context) == wanted


async def _found(
    runtime: Runtime, context: TenantContext, state: JobState, holds: Callable[[JobView], bool] = lambda _: True
) -> JobView:
    wanted = JobFilter(state=state, owner=str(context.id))
    async with asyncio.timeout(ENDED_S):
        while True:
            for job in await runtime.jobs.store.find(wanted):
                if holds(job):
                    return job
            await asyncio.sleep(0.02)


async def test_the_command_and_the_workers_do_not_take_the_same_file(
    runtime: Runtime, inventory_app: StrataApp, tenant_on: Tenantry, tmp_path: Path
) -> None:
    context = await tenant_on(Tier.SHARED)
    path = tmp_path / "sales.csv"
    path.write_bytes(FILE)
    runner = ImportRunner(runtime.tenants, context)
    options = ImportOptions(opening_stock=True)
    async with uploaded(inventory_app, runtime, context) as (client, address):
        with pytest.raises(Exception, match="Workers are importing this file already"):
            await runner.run(SourceFile(path), packaged("online-retail"), options, actor="tests")
        await client.post(f"{address}/cancel")
        summary = await runner.run(SourceFile(path), packaged("online-retail"), options, actor="tests")
        assert summary.run.queued is False
        assert (await client.post(f"{address}/cancel")).json()["code"] == "import-done"
