"""From requests and statements to the catalog: everything once, whatever fails in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from strata.app import StrataApp, create_app
from strata.inventory.products.models import Product
from strata.inventory.storage import measure_storage
from strata.platform.ids import new_id
from strata.platform.jobs.declaration import NoArguments
from strata.platform.jobs.store import JobState
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from strata.tenancy.usage.book import Batch, UsageBook, period_of, today
from strata.tenancy.usage.flushing import UsageFlusher
from strata.tenancy.usage.meter import UsageMeter
from strata.tenancy.usage.meters import Meter
from strata.tenancy.usage.storage import measure
from tests.builders.http import client_of, token_for
from tests.builders.inventory import stocked
from tests.builders.jobs import ended, working
from tests.builders.platform import Tenantry, second_process


@pytest.fixture
async def process(runtime: Runtime) -> AsyncIterator[Runtime]:
    """One of this test alone, that reports only when it is told to."""
    usage = runtime.settings.usage.model_copy(update={"flush_s": 3600.0})
    async with second_process(runtime, usage=usage) as other:
        yield other


async def amounts(runtime: Runtime, tenant_id: UUID) -> dict[str, int]:
    return {line.meter: line.amount for line in await runtime.usage.months(tenant_id)}


async def test_requests_and_their_statements_are_counted_once(process: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SCHEMA)
    app: StrataApp = create_app(process)
    sent, received = 0, 0
    async with client_of(app, f"{context.slug}.localhost", token=token_for(process.tokens, context)) as client:
        for number in range(3):
            body = msgspec.json.encode({"sku": f"U-{number}", "name": "Counted"})
            answer = await client.post("/api/v1/products", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == 201
            sent, received = sent + len(body), received + len(answer.content)
        listed = await client.get("/api/v1/products")
        page = await client.get("/stock")
        received += len(listed.content) + len(page.content)
    assert await process.flusher.flush()
    assert await process.flusher.flush()
    counted = await amounts(process, context.id)
    assert counted[Meter.API_CALLS] == 4
    assert counted[Meter.REQUESTS] == 5
    assert (counted[Meter.BYTES_IN], counted[Meter.BYTES_OUT]) == (sent, received)
    assert counted[Meter.ACTIVE_USERS] == 1
    assert counted[Meter.DATABASE_MS] > 0
    assert counted[Meter.COMPUTE_MS] >= counted[Meter.DATABASE_MS]
    assert counted[Meter.ROWS_TOUCHED] >= 6
    days = await process.usage.days(context.id, today() - timedelta(days=1), today())
    assert sum(line.amount for line in days if line.meter == Meter.API_CALLS) == 4


@pytest.mark.parametrize("tier", Tier)
async def test_every_statement_counts_also_one_that_fails(process: Runtime, tenant_on: Tenantry, tier: Tier) -> None:
    context = await tenant_on(tier)
    async with process.tenants.transaction(context) as session:
        await session.execute(select(Product))
    with pytest.raises(Exception, match="canceling statement"):
        async with process.tenants.reading(context) as session:
            await session.execute(text("SET LOCAL statement_timeout = 60"))
            await session.execute(text("SELECT pg_sleep(5)"))
    load = process.meter.loads[context.placement.cell, context.id]
    assert (load.transactions, load.statements) == (2, 3)
    assert load.database_ns > 50_000_000


async def test_who_asked_twice_is_one_user_and_nobody_is_named(process: Runtime, tenant_on: Tenantry) -> None:
    context, other = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED)
    for subject in ("robin", "alex", "robin"):
        process.meter.saw(context.id, subject)
    process.meter.saw(other.id, "robin")
    assert await process.flusher.flush()
    process.meter.begin_period()
    process.meter.saw(context.id, "robin")
    assert await process.flusher.flush()
    assert (await amounts(process, context.id))[Meter.ACTIVE_USERS] == 2
    async with process.catalog_engine.connect() as connection:
        found = await connection.execute(
            text("SELECT digest FROM usage_user WHERE tenant_id IN (:a, :b)"), {"a": context.id, "b": other.id}
        )
        digests = [bytes(row.digest) for row in found]
    assert len(digests) == len(set(digests)) == 3


async def test_a_batch_is_counted_once_however_often_it_comes(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    line = (context.id, Meter.API_CALLS.value)
    batch = Batch(new_id(), date(2026, 3, 31), {line: 7, (uuid4(), Meter.API_CALLS.value): 1}, frozenset())
    answers = await asyncio.gather(*(runtime.usage.count(batch) for _ in range(4)))
    assert sorted(answers) == [False, False, False, True]
    await runtime.usage.count(Batch(new_id(), date(2026, 4, 1), {line: 5}, frozenset()))
    lines = await runtime.usage.months(context.id)
    assert [(each.period, each.amount) for each in lines] == [("2026-03", 7), ("2026-04", 5)]


async def test_an_answer_that_is_lost_counts_nothing_twice(runtime: Runtime, tenant_on: Tenantry) -> None:
    """The catalog commits, and the connection ends before it can say so."""
    context = await tenant_on(Tier.SHARED)
    engine = create_async_engine(runtime.catalog_engine.url)
    cut = 0

    @event.listens_for(engine.sync_engine, "commit")
    def lose(connection: object) -> None:
        nonlocal cut
        cut += 1
        if cut == 1:
            # Committed by hand; then the one that SQLAlchemy would do fails with the socket.
            driver = connection.connection.driver_connection  # type: ignore[attr-defined]
            connection.connection.cursor().execute("COMMIT")  # type: ignore[attr-defined]
            driver.terminate()

    meter = UsageMeter()
    flusher = UsageFlusher(meter, UsageBook(engine), flush_s=3600)
    meter.tally(context.id).api_calls += 3
    assert not await flusher.flush()
    meter.tally(context.id).api_calls += 2
    assert await flusher.flush()
    await flusher.close()
    await engine.dispose()
    assert (await amounts(runtime, context.id))[Meter.API_CALLS] == 5


async def test_without_the_catalog_counts_are_kept(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    gone = create_async_engine("postgresql+asyncpg://nobody:none@127.0.0.1:1/none")
    meter = UsageMeter()
    flusher = UsageFlusher(meter, UsageBook(gone), flush_s=3600)
    for _ in range(3):
        meter.tally(context.id).api_calls += 1
        assert not await flusher.flush()
    assert flusher.pending == 3
    flusher.book = runtime.usage
    await flusher.close()
    assert (await amounts(runtime, context.id))[Meter.API_CALLS] == 3


async def test_what_is_counted_before_midnight_is_of_the_day_before(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    now = datetime(2026, 2, 28, 23, 59, 58, tzinfo=UTC)
    meter = UsageMeter()
    flusher = UsageFlusher(meter, runtime.usage, flush_s=3600, now=lambda: now)
    meter.tally(context.id).requests += 1
    meter.saw(context.id, "robin")
    now = datetime(2026, 3, 1, 0, 0, 0, tzinfo=UTC)
    await flusher.flush()
    meter.tally(context.id).requests += 1
    meter.saw(context.id, "robin")
    await flusher.flush()
    await flusher.close()
    lines = [(each.period, each.meter, each.amount) for each in await runtime.usage.months(context.id)]
    assert lines == [(period, meter, 1) for period in ("2026-02", "2026-03") for meter in ("active-users", "requests")]


@pytest.mark.parametrize("tier", Tier)
async def test_storage_is_what_the_tenant_has_and_not_its_neighbours(
    runtime: Runtime, tenant_on: Tenantry, tier: Tier
) -> None:
    context, neighbour = await tenant_on(tier), await tenant_on(tier)
    await stocked(runtime, neighbour, skus=300, bins=2)
    empty = await measure(runtime.tenants, context)
    await stocked(runtime, context, skus=50, bins=2)
    filled = await measure(runtime.tenants, context)
    async with runtime.tenants.reading(context) as session:
        products = await session.scalar(select(func.count()).select_from(Product))
    assert products == 50
    assert 50 <= filled.rows - empty.rows < 150
    assert filled.size_bytes > 50 * 40
    assert (await measure(runtime.tenants, neighbour)).rows > 300


async def test_the_job_keeps_the_highest_of_a_month(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    await stocked(runtime, context)
    await runtime.usage.record_peaks(context.id, today(), {Meter.ROWS: 10**6, Meter.STORAGE_BYTES: 5})
    async with working(runtime, jobs=[measure_storage]):
        job = await runtime.jobs.defer(measure_storage, context.id, NoArguments())
        assert (await ended(runtime, job)).state is JobState.SUCCEEDED
    assert (await amounts(runtime, context.id))[Meter.STORAGE_BYTES] > 5
    assert (await amounts(runtime, context.id))[Meter.ROWS] == 10**6
    assert period_of(today()) in {line.period for line in await runtime.usage.months(context.id)}
