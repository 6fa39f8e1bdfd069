"""Killed, cancelled, cut off, started twice: no row lost, none doubled."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from strata.inventory.imports.errors import FileChangedError, ImportedOtherwiseError
from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.mapping import packaged, parse
from strata.inventory.imports.models import ImportState
from strata.inventory.imports.runner import ImportRunner, Listener, Progress
from strata.inventory.imports.schemas import ImportOptions, ImportSummary
from strata.platform.errors import UnavailableError
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.command import clean_environment, environment_for
from tests.builders.imports import Books, books, imported, stock_list
from tests.builders.platform import Platform, Tenantry, admin_of

PROGRAM = Path(__file__).with_name("importing.py")
HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID"
RETAIL = packaged("online-retail")
ROWS = 3000
SKUS = 40


@pytest.fixture
def sales(tmp_path: Path) -> SourceFile:
    """Invoices of 1 to 7 lines, with fees and broken rows among them."""
    chance = random.Random(7)
    rows = [HEADER]
    invoice = 1
    while len(rows) <= ROWS:
        for _ in range(chance.randint(1, 7)):
            code = chance.choice(["POST", *(f"S{n}" for n in range(SKUS))])
            quantity = "x" if chance.random() < 0.02 else chance.randint(1, 9)
            rows.append(f"{invoice},{code},N,{quantity},2010-12-01 08:26:00,1,1")
        invoice += 1
    path = tmp_path / "sales.csv"
    path.write_text("\n".join(rows[: ROWS + 1]))
    return SourceFile(path)


async def load(
    runtime: Runtime, context: TenantContext, file: SourceFile, *, batch_rows: int = 100, listener: Listener = print
) -> ImportSummary:
    runner = ImportRunner(runtime.tenants, context, batch_rows=batch_rows, lease_s=0.3)
    return await runner.run(file, RETAIL, ImportOptions(opening_stock=True), actor="tests", listener=listener)


async def expected(runtime: Runtime, tenant_on: Tenantry, file: SourceFile) -> Books:
    """What one undisturbed import of the file makes of an empty tenant."""
    context = await tenant_on(Tier.SHARED)
    summary = await load(runtime, context, file)
    found = await books(runtime, context)
    assert summary.run.rows_read == summary.run.lines_accepted + summary.run.lines_refused == ROWS
    assert summary.run.quantity_sum == sum(found.by_sku.values())
    assert set(summary.refused_by_code) == {"not-goods", "quantity-invalid"}
    return found


@asynccontextmanager
async def importer(
    platform: Platform, context: TenantContext, file: SourceFile
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        PROGRAM,
        context.slug,
        file.path,
        RETAIL.name,
        "60",
        "0.3",
        stdout=subprocess.PIPE,
        env=clean_environment({"PYTHONPATH": str(Path(__file__).parents[4]), **environment_for(platform)}),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def events(process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    assert process.stdout is not None
    async for line in process.stdout:
        # Log lines stand between them.
        if line.startswith(b"{"):
            yield json.loads(line)


@pytest.mark.slow
async def test_killed_again_and_again_it_ends_as_if_it_had_not_been(
    runtime: Runtime, platform: Platform, tenant_on: Tenantry, sales: SourceFile
) -> None:
    wanted = await expected(runtime, tenant_on, sales)
    context = await tenant_on(Tier.SCHEMA)
    chance = random.Random(11)
    seen: list[int] = []
    for stop_at in (0, 400, 1300):
        async with importer(platform, context, sales) as process:
            async for event in events(process):
                if event["event"] == "progress" and event["phase"] == "rows" and event["rows"] >= stop_at:
                    break
                if stop_at == 0 and event["event"] == "progress" and event["phase"] == "opening":
                    break
            # Somewhere within the next batches, not just after one.
            await asyncio.sleep(chance.uniform(0, 0.05))
            process.kill()
            await process.wait()
        async with runtime.tenants.reading(context) as session:
            [(state, checkpoint)] = await session.execute(text("SELECT state, rows_read FROM import_run"))
        assert state == ImportState.RUNNING
        seen.append(checkpoint)
    assert sorted(set(seen)) == seen, seen
    assert seen[-1] < ROWS

    summary = await load(runtime, context, sales)
    assert (summary.run.state, summary.rows_before, summary.nothing_to_do) == (ImportState.DONE, seen[-1], False)
    assert await books(runtime, context) == wanted


@pytest.mark.slow
async def test_cancelled_anywhere_it_ends_as_if_it_had_not_been(
    runtime: Runtime, tenant_on: Tenantry, sales: SourceFile
) -> None:
    wanted = await expected(runtime, tenant_on, sales)
    context = await tenant_on(Tier.SHARED)
    cancelled = 0
    patience_s = 0.05
    while True:
        try:
            async with asyncio.timeout(patience_s):
                runner = ImportRunner(runtime.tenants, context, batch_rows=40, lease_s=0.01)
                await runner.run(sales, RETAIL, ImportOptions(opening_stock=True), actor="tests")
            break
        except TimeoutError:
            cancelled += 1
            patience_s *= 1.13
    assert cancelled > 0
    assert await books(runtime, context) == wanted


@pytest.mark.slow
async def test_of_two_at_once_one_imports_and_the_other_is_refused_or_finds_it_done(
    runtime: Runtime, platform: Platform, tenant_on: Tenantry, sales: SourceFile
) -> None:
    wanted = await expected(runtime, tenant_on, sales)
    context = await tenant_on(Tier.DEDICATED)

    async def last_event() -> dict[str, Any]:
        async with importer(platform, context, sales) as process:
            return [event async for event in events(process)][-1]

    ends = await asyncio.gather(last_event(), last_event())
    done = [end for end in ends if end["event"] == "summary"]
    refused = [end for end in ends if end["event"] == "refused"]
    assert len(done) >= 1
    assert {end["code"] for end in refused} <= {"import-running"}
    assert sum(not end["nothing_to_do"] for end in done) == 1
    assert await books(runtime, context) == wanted


@pytest.mark.slow
async def test_with_its_connections_cut_it_ends_as_if_they_had_not_been(
    runtime: Runtime, tenant_on: Tenantry, sales: SourceFile
) -> None:
    """The connections are killed while it runs: between statements, within them, and while committing."""
    wanted = await expected(runtime, tenant_on, sales)
    context = await tenant_on(Tier.SCHEMA)
    kills = 0

    async def kill() -> None:
        nonlocal kills
        chance = random.Random(17)
        async with admin_of(runtime, context.placement.cell) as admin:
            while True:
                await asyncio.sleep(chance.uniform(0.05, 0.25))
                kills += await admin.fetchval(
                    "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )

    killer = asyncio.create_task(kill())
    try:
        while True:
            with suppress(UnavailableError):
                await load(runtime, context, sales, batch_rows=40)
                break
    finally:
        killer.cancel()
        await asyncio.gather(killer, return_exceptions=True)
    assert kills > 0
    assert await books(runtime, context) == wanted


async def test_a_file_that_changes_meanwhile_is_noticed_and_what_was_done_stays(
    runtime: Runtime, tenant_on: Tenantry, sales: SourceFile
) -> None:
    context = await tenant_on(Tier.SHARED)

    def spoil(progress: Progress) -> None:
        if progress.phase == "rows" and progress.rows > 500:
            sales.path.write_text("gone")

    with pytest.raises(FileChangedError):
        await load(runtime, context, sales, listener=spoil)
    async with runtime.tenants.reading(context) as session:
        [(state, rows, failure)] = await session.execute(text("SELECT state, rows_read, failure FROM import_run"))
    assert state == ImportState.FAILED
    assert 500 < rows < ROWS
    assert "changed while it was being imported" in failure


async def test_a_failed_run_goes_on_without_waiting(runtime: Runtime, tenant_on: Tenantry, sales: SourceFile) -> None:
    wanted = await expected(runtime, tenant_on, sales)
    context = await tenant_on(Tier.SHARED)
    content = sales.path.read_text()

    def spoil(progress: Progress) -> None:
        if progress.phase == "rows" and progress.rows > 500:
            sales.path.write_text("gone")

    with pytest.raises(FileChangedError):
        await load(runtime, context, sales, listener=spoil)
    sales.path.write_text(content)
    phases: list[str] = []
    summary = await load(runtime, context, SourceFile(sales.path), listener=lambda each: phases.append(each.phase))
    assert "waiting" not in phases
    assert summary.rows_before > 500
    assert summary.run.failure is None
    assert await books(runtime, context) == wanted


async def test_the_same_rows_packed_or_renamed_are_the_same_import(
    runtime: Runtime, tenant_on: Tenantry, tmp_path: Path
) -> None:
    context = await tenant_on(Tier.SHARED)
    first = await imported(runtime, context, stock_list(tmp_path / "a.csv", ["x,X,5"]))
    second = await imported(runtime, context, stock_list(tmp_path / "b.csv", ["x,X,5"]))
    assert (second.nothing_to_do, second.run.id) == (True, first.run.id)
    assert (await books(runtime, context)).by_sku == {"x": 5}


async def test_other_options_or_another_wording_are_another_run_which_must_be_meant(
    runtime: Runtime, tenant_on: Tenantry, tmp_path: Path
) -> None:
    context = await tenant_on(Tier.SHARED)
    file = stock_list(tmp_path / "a.csv", ["x,X,5"])
    await imported(runtime, context, file)
    with pytest.raises(ImportedOtherwiseError) as refused:
        await imported(runtime, context, file, opening_stock=True)
    assert refused.value.extra["lines_accepted"] == 1
    reworded = parse("stock-list", packaged_text("stock-list").replace('"stock-list"', '"count"').encode())
    runner = ImportRunner(runtime.tenants, context)
    with pytest.raises(ImportedOtherwiseError):
        await runner.run(file, reworded, ImportOptions(), actor="tests")
    assert (await books(runtime, context)).by_sku == {"x": 5}
    async with runtime.tenants.reading(context) as session:
        assert await session.scalar(text("SELECT count(*) FROM import_run")) == 1

    again = await runner.run(file, reworded, ImportOptions(), actor="tests", again=True)
    assert again.run.lines_accepted == 1
    assert (await books(runtime, context)).by_sku == {"x": 10}


def packaged_text(name: str) -> str:
    return (Path(sys.modules[packaged.__module__].__file__ or "").with_name("mappings") / f"{name}.toml").read_text()
