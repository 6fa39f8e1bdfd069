"""Every row is either in the ledger or in the list of refusals, with a reason that a person understands."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text

from strata.inventory.imports import repository
from strata.inventory.imports.errors import BinInactiveError, FileUnreadableError, ReportUnwritableError
from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.mapping import parse
from strata.inventory.imports.report import write_report
from strata.inventory.imports.runner import ImportRunner
from strata.inventory.imports.schemas import ImportOptions, RefusalOut
from strata.platform.paging import Paging
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import TenantReadOnlyError
from strata.tenancy.model import TenantStatus, Tier
from strata.tenancy.plans import Limits
from tests.builders.imports import books, imported, stock_list
from tests.builders.platform import Tenantry

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID"
AT = "2010-12-01 08:26:00"


@pytest.fixture
async def context(tenant_on: Tenantry) -> TenantContext:
    return await tenant_on(Tier.SHARED)


async def refusals(runtime: Runtime, context: TenantContext) -> list[RefusalOut]:
    async with runtime.tenants.reading(context) as session:
        [run] = (await repository.list_runs(session, Paging())).items
        return (await repository.list_refusals(session, run.id, Paging(200))).items


async def test_a_movement_that_is_short_is_refused_whole_and_each_of_its_lines_says_why(
    runtime: Runtime, context: TenantContext, tmp_path: Path
) -> None:
    rows = [
        f"C1,A,A,-5,{AT},1,1",
        f"C1,X,X,-5,{AT},1,1",
        f"2,A,A,3,{AT},1,1",
        f"2,X,X,4,{AT},1,1",
        f"2,X,X,4,{AT},1,1",
        f"3,A,A,5,{AT},1,1",
    ]
    file = stock_list(tmp_path / "f.csv", rows, header=HEADER)
    summary = await imported(runtime, context, file, "online-retail")
    assert summary.refused_by_code == {"shortage": 2, "movement-refused": 1}
    found = await refusals(runtime, context)
    assert [(each.line, each.code) for each in found] == [(4, "movement-refused"), (5, "shortage"), (6, "shortage")]
    assert found[0].message == "Line 4 belongs to one movement with line 5, which was refused."
    assert found[1].message == "Line 5 is short of «X»: its movement takes 8, and 5 are on hand."
    assert found[1].source == dict(zip(HEADER.split(","), rows[3].split(","), strict=True))
    assert (await books(runtime, context)).on_hand == {"A": 0, "X": 5}


async def test_products_beyond_the_plan_are_refused_and_the_rest_of_their_movement_is_not(
    runtime: Runtime, context: TenantContext, tmp_path: Path
) -> None:
    limited = msgspec.structs.replace(context, limits=Limits(skus=2, locations=5))
    file = stock_list(tmp_path / "f.csv", ["a,A,1", "b,B,1", "c,C,1", "a,A,1", "d,D,1"])
    summary = await imported(runtime, limited, file)
    assert summary.refused_by_code == {"sku-limit": 2}
    assert [each.message for each in await refusals(runtime, context)] == [
        "Line 4 names the new product «c», and the plan allows 2 products, which are in use.",
        "Line 6 names the new product «d», and the plan allows 2 products, which are in use.",
    ]
    found = await books(runtime, context)
    assert (found.by_sku, found.quota) == ({"a": 2, "b": 1}, 2)


async def test_with_the_limit_opening_stock_is_for_products_that_fit(
    runtime: Runtime, context: TenantContext, tmp_path: Path
) -> None:
    limited = msgspec.structs.replace(context, limits=Limits(skus=1, locations=5))
    rows = [f"1,A,A,2,{AT},1,1", f"1,X,X,2,{AT},1,1"]
    file = stock_list(tmp_path / "f.csv", rows, header=HEADER)
    summary = await imported(runtime, limited, file, "online-retail", opening_stock=True)
    assert (summary.refused_by_code, summary.run.opening_sum) == ({"sku-limit": 1}, 2)
    assert (await books(runtime, context)).on_hand == {"A": 0}


async def test_an_inactive_product_refuses_its_movements(
    runtime: Runtime, context: TenantContext, tmp_path: Path
) -> None:
    await imported(runtime, context, stock_list(tmp_path / "f.csv", ["a,A,1", "b,B,1"]))
    async with runtime.tenants.transaction(context) as session:
        await session.execute(text("UPDATE product SET active = false WHERE sku = 'a'"))
        await session.execute(text("DELETE FROM import_run"))
    summary = await imported(runtime, context, stock_list(tmp_path / "g.csv", ["a,A,2", "b,B,2"]))
    assert summary.refused_by_code == {"movement-refused": 1, "sku-inactive": 1}
    found = await refusals(runtime, context)
    assert found[0].message == "Line 2 was refused: The product «a» is inactive; activate it first."


async def test_opening_stock_counts_what_is_there_already(
    runtime: Runtime, context: TenantContext, tmp_path: Path
) -> None:
    await imported(runtime, context, stock_list(tmp_path / "f.csv", ["A,A,3", "X,X,30"]))
    rows = [f"1,A,A,10,{AT},1,1", f"1,X,X,10,{AT},1,1"]
    file = stock_list(tmp_path / "g.csv", rows, header=HEADER)
    summary = await imported(runtime, context, file, "online-retail", opening_stock=True)
    assert (summary.run.opening_sum, summary.run.lines_refused) == (7, 0)
    assert (await books(runtime, context)).on_hand == {"A": 0, "X": 20}


async def test_lines_that_cancel_out_are_told(runtime: Runtime, context: TenantContext, tmp_path: Path) -> None:
    mapping = parse(
        "adjustments",
        b"""
        title = "Adjustments by document"
        product.sku = { column = "sku" }
        movement = { quantity = "n", group_by = ["doc"], warehouse = "W", zone = "Z", bin = "B" }
        post = [{ kind = "adjust" }]
        """,
    )
    file = stock_list(tmp_path / "f.csv", ["1,a,5", "2,a,-2", "2,a,2", "3,a,1"], header="doc,sku,n")
    await ImportRunner(runtime.tenants, context).run(file, mapping, ImportOptions(), actor="tests")
    found = await refusals(runtime, context)
    assert [(each.line, each.code) for each in found] == [(3, "cancelled-out"), (4, "cancelled-out")]
    assert found[0].message == "Line 3 and the other lines of its movement cancel each other out."
    assert (await books(runtime, context)).on_hand == {"a": 6}


@pytest.mark.parametrize("tier", Tier)
async def test_a_broken_file_loses_nothing_but_its_broken_rows(
    runtime: Runtime, tenant_on: Tenantry, tmp_path: Path, tier: Tier
) -> None:
    context = await tenant_on(tier)
    path = tmp_path / "broken.csv"
    path.write_bytes(
        b"\xef\xbb\xbfsku,name,quantity\r\n"
        b'a,"two\r\nlines, ""quoted""",1\r\n'
        b"b,B\r\n"
        b"c,\xa3,1\r\n"
        b"d,D,many\r\n"
        b"\r\n"
        b",E,1\r\n"
        b"f,F\x00,1\r\n"
        b'g,"G,1\r\n'
        b"h,H,1\r\n"
        b"i," + b"x" * 200_000 + b",1\r\n"
        b"j,J,0\r\n"
        b"k,K,1"
    )
    summary = await imported(runtime, context, SourceFile(path))
    assert [(each.line, each.code) for each in await refusals(runtime, context)] == [
        (4, "wrong-field-count"),
        (5, "bad-encoding"),
        (6, "quantity-invalid"),
        (8, "sku-missing"),
        (9, "control-character"),
        (10, "unreadable"),
        (12, "row-too-long"),
        (13, "quantity-zero"),
    ]
    assert (summary.rows, summary.run.lines_accepted, summary.run.lines_refused) == (11, 3, 8)
    assert (await books(runtime, context)).by_sku == {"a": 1, "h": 1, "k": 1}
    async with runtime.tenants.reading(context) as session:
        assert await session.scalar(text("SELECT name FROM product WHERE sku = 'a'")) == 'two lines, "quoted"'


async def test_a_file_that_cannot_be_read_to_its_end_writes_nothing(
    runtime: Runtime, context: TenantContext, tmp_path: Path
) -> None:
    packed = gzip.compress(("sku,name,quantity\n" + "".join(f"s{n},N,{n + 1}\n" for n in range(5000))).encode())
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(packed[:-2000])
    with pytest.raises(FileUnreadableError):
        await imported(runtime, context, SourceFile(path))
    found = await books(runtime, context)
    assert (found.products, found.lines) == (0, 0)
    async with runtime.tenants.reading(context) as session:
        assert await session.scalar(text("SELECT count(*) FROM import_run")) == 0


async def test_places_that_do_not_do_are_told_before_any_row(
    runtime: Runtime, context: TenantContext, tmp_path: Path
) -> None:
    file = stock_list(tmp_path / "f.csv", ["a,A,1"])
    await imported(runtime, context, file)
    async with runtime.tenants.transaction(context) as session:
        await session.execute(text("UPDATE bin SET active = false"))
    with pytest.raises(BinInactiveError):
        await imported(runtime, context, stock_list(tmp_path / "g.csv", ["b,B,1"]))
    read_only = msgspec.structs.replace(context, status=TenantStatus.READ_ONLY)
    with pytest.raises(TenantReadOnlyError):
        await imported(runtime, read_only, stock_list(tmp_path / "h.csv", ["b,B,1"]))


async def test_reports_for_spreadsheets_and_for_programs(
    runtime: Runtime, context: TenantContext, tmp_path: Path
) -> None:
    file = stock_list(tmp_path / "f.csv", [f's{n},"a ""name"", tidy",0' for n in range(4500)])
    summary = await imported(runtime, context, file)
    written = tmp_path / "r.csv", tmp_path / "r.json"
    for path in written:
        assert await write_report(runtime.tenants, context, summary.run.id, path) == 4500
    with written[0].open(newline="") as report:
        as_rows = list(csv.DictReader(report))
    as_documents = json.loads(written[1].read_text())
    assert [row["line"] for row in as_rows] == [str(each["line"]) for each in as_documents]
    assert [int(row["line"]) for row in as_rows] == list(range(2, 4502))
    assert as_rows[0]["code"] == as_documents[0]["code"] == "quantity-zero"
    assert json.loads(as_rows[0]["source"]) == as_documents[0]["source"]
    assert as_documents[0]["source"] == {"sku": "s0", "name": 'a "name", tidy', "quantity": "0"}

    clean = await imported(runtime, context, stock_list(tmp_path / "g.csv", ["a,A,1"]))
    await write_report(runtime.tenants, context, clean.run.id, written[1])
    assert json.loads(written[1].read_text()) == []
    for path in (tmp_path / "r.txt", tmp_path / "nowhere" / "r.csv"):
        with pytest.raises(ReportUnwritableError):
            await write_report(runtime.tenants, context, clean.run.id, path)
