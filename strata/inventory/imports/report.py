"""The refused rows of a run, as a file: for a spreadsheet (.csv) or for a program (.json)."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from pathlib import Path
from typing import TextIO
from uuid import UUID

import msgspec

from strata.inventory.imports import repository
from strata.inventory.imports.errors import ReportUnwritableError
from strata.inventory.imports.schemas import RefusalOut
from strata.platform.paging import Paging
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants

_PAGE = 2000


class ReportFormat(StrEnum):
    CSV = ".csv"
    JSON = ".json"


def report_format(path: Path) -> ReportFormat:
    try:
        return ReportFormat(path.suffix.lower())
    except ValueError:
        raise ReportUnwritableError(path.name, "its name should end in .csv or .json") from None


async def write_report(tenants: Tenants, context: TenantContext, run_id: UUID, path: Path) -> int:
    """Every refusal in the order of the file; returns how many. Page by page, so that millions of them are no matter."""
    chosen = report_format(path)
    count = 0
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            write = _csv_writer(file) if chosen is ReportFormat.CSV else _json_writer(file)
            async for page in _pages(tenants, context, run_id):
                for refusal in page:
                    write(refusal)
                count += len(page)
            if chosen is ReportFormat.JSON:
                file.write("\n]\n" if count else "[]\n")
    except OSError as error:
        raise ReportUnwritableError(path.name, error.strerror or str(error)) from error
    return count


async def _pages(tenants: Tenants, context: TenantContext, run_id: UUID) -> AsyncIterator[list[RefusalOut]]:
    cursor: str | None = None
    while True:
        async with tenants.reading(context) as session:
            page = await repository.list_refusals(session, run_id, Paging(_PAGE, cursor))
        if page.items:
            yield page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _csv_writer(file: TextIO) -> Callable[[RefusalOut], None]:
    writer = csv.writer(file)
    writer.writerow(["line", "code", "message", "source"])

    def write(refusal: RefusalOut) -> None:
        source = msgspec.json.encode(refusal.source).decode()
        writer.writerow([refusal.line, refusal.code, refusal.message, source])

    return write


def _json_writer(file: TextIO) -> Callable[[RefusalOut], None]:
    before = "[\n"

    def write(refusal: RefusalOut) -> None:
        nonlocal before
        file.write(before + msgspec.json.encode(refusal).decode())
        before = ",\n"

    return write
