"""Imports: the real file, what it comes to by another way of counting, and what a tenant's ledger says."""

from __future__ import annotations

import csv
import gzip
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text

from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.mapping import packaged
from strata.inventory.imports.runner import ImportRunner
from strata.inventory.imports.schemas import ImportOptions, ImportSummary
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext

ONLINE_RETAIL = Path(__file__).parents[3] / "shared/data/online-retail/2010-12.csv.gz"
needs_online_retail = pytest.mark.skipif(not ONLINE_RETAIL.exists(), reason=f"{ONLINE_RETAIL} is not on this machine")


class Recount(msgspec.Struct):
    """The file by plain csv and a handful of ifs, sharing no code with the importer."""

    rows: int = 0
    reasons: Counter[str] = msgspec.field(default_factory=Counter)
    refused: Counter[str] = msgspec.field(default_factory=Counter)
    change: defaultdict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))
    lowest: defaultdict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))
    movements: int = 0

    @property
    def accepted(self) -> int:
        return self.reasons.total()


NOT_GOODS = {"POST", "DOT", "C2", "M", "D", "S", "BANK CHARGES", "AMAZONFEE"}


def recount(*, from_nothing: bool = False) -> Recount:
    """`from_nothing`: no opening stock; an invoice that is short of anything is refused whole."""
    result = Recount()
    with gzip.open(ONLINE_RETAIL, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    result.rows = len(rows)
    goods = [(row["InvoiceNo"], *_change(row)) for row in rows if not _no_goods(row)]
    result.refused["not-goods"] = len(rows) - len(goods)
    # (invoice, reason) in one stretch is one movement.
    for _, lines in groupby(goods, key=lambda line: line[:2]):
        _post(result, [(reason, sku, change) for _, reason, sku, change in lines], from_nothing=from_nothing)
    return result


def _no_goods(row: dict[str, str]) -> bool:
    code = row["StockCode"].strip().upper()
    return code in NOT_GOODS or code.startswith("GIFT_")


def _change(row: dict[str, str]) -> tuple[str, str, int]:
    sku, quantity = row["StockCode"].strip().upper(), int(row["Quantity"])
    if row["InvoiceNo"].startswith("C"):
        return "customer-return", sku, -quantity
    if quantity < 0:
        return "write-off", sku, quantity
    if not row["Description"].strip() and not row["CustomerID"] and float(row["UnitPrice"]) == 0:
        return "stock-found", sku, quantity
    return "sale", sku, -quantity


def _post(result: Recount, lines: list[tuple[str, str, int]], *, from_nothing: bool) -> None:
    changes: Counter[str] = Counter()
    for _, sku, change in lines:
        changes[sku] += change
    short = {sku for sku, change in changes.items() if result.change[sku] + change < 0}
    if from_nothing and short:
        result.refused.update("shortage" if sku in short else "movement-refused" for _, sku, _ in lines)
        return
    result.movements += 1
    result.reasons.update(reason for reason, _, _ in lines)
    for sku, change in changes.items():
        result.change[sku] += change
        result.lowest[sku] = min(result.lowest[sku], result.change[sku])


class Books(msgspec.Struct):
    """What a tenant's tables say."""

    by_sku: dict[str, int]
    """Sum of the ledger, without opening stock."""
    opening: dict[str, int]
    on_hand: dict[str, int]
    lines: int
    movements: int
    products: int
    quota: int
    gapless: bool
    refusals: dict[str, int]


_BY_SKU = """
SELECT p.sku, coalesce(sum(l.quantity) FILTER (WHERE m.reason IS DISTINCT FROM 'opening-stock'), 0)::bigint AS change,
       coalesce(sum(l.quantity) FILTER (WHERE m.reason = 'opening-stock'), 0)::bigint AS opening
FROM stock_ledger l JOIN product p ON p.id = l.product_id JOIN movement m ON m.id = l.movement_id
GROUP BY p.sku
"""
_FACTS = """
SELECT (SELECT count(*) FROM stock_ledger) AS lines, (SELECT count(*) FROM movement) AS movements,
       (SELECT count(*) FROM product) AS products,
       coalesce((SELECT used FROM quota WHERE name = 'skus'), 0) AS quota,
       NOT EXISTS (SELECT FROM stock_balance b WHERE b.sequence <> (
           SELECT count(*) FROM stock_ledger l WHERE l.balance_id = b.id)) AS gapless
"""


async def books(runtime: Runtime, context: TenantContext) -> Books:
    async with runtime.tenants.reading(context) as session:
        by_sku = (await session.execute(text(_BY_SKU))).all()
        on_hand = await session.execute(
            text("SELECT p.sku, b.on_hand FROM stock_balance b JOIN product p ON p.id = b.product_id")
        )
        refusals = await session.execute(text("SELECT code, count(*) AS rows FROM import_refusal GROUP BY code"))
        facts = (await session.execute(text(_FACTS))).one()
        return Books(
            by_sku={row.sku: row.change for row in by_sku},
            opening={row.sku: row.opening for row in by_sku if row.opening},
            on_hand={row.sku: row.on_hand for row in on_hand},
            refusals={row.code: row.rows for row in refusals},
            **facts._mapping,
        )


def stock_list(path: Path, rows: Sequence[str], *, header: str = "sku,name,quantity") -> SourceFile:
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return SourceFile(path)


async def imported(
    runtime: Runtime, context: TenantContext, file: SourceFile, mapping: str = "stock-list", **options: bool
) -> ImportSummary:
    runner = ImportRunner(runtime.tenants, context, batch_rows=50, lease_s=0.3)
    return await runner.run(file, packaged(mapping), ImportOptions(**options), actor="tests")
