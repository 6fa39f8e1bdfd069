"""An audit as a file: JSON lines, which can be checked line by line without Strata, or CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterable, AsyncIterator
from enum import StrEnum

from strata.tenancy.audit.chain import ChainedEntry

_COLUMNS = (
    "sequence",
    "at",
    "actor",
    "action",
    "subject",
    "source",
    "authentication",
    "request",
    "detail",
    "id",
    "previous",
    "digest",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class ExportFormat(StrEnum):
    JSON_LINES = "jsonl"
    CSV = "csv"

    @property
    def media_type(self) -> str:
        return "text/csv; charset=utf-8" if self is ExportFormat.CSV else "application/jsonl"


async def begun(entries: AsyncIterator[ChainedEntry]) -> AsyncIterator[ChainedEntry]:
    """The same entries, with the first one read already.

    A database that is away is refused by name here: once an answer has begun, all that is left is to break it off.
    """
    try:
        first = await anext(entries)
    except StopAsyncIteration:
        return _after((), entries)
    return _after((first,), entries)


async def _after(first: tuple[ChainedEntry, ...], rest: AsyncIterator[ChainedEntry]) -> AsyncIterator[ChainedEntry]:
    for entry in first:
        yield entry
    async for entry in rest:
        yield entry


async def exported(entries: AsyncIterable[ChainedEntry], form: ExportFormat) -> AsyncIterator[str]:
    """The file, a line at a time."""
    if form is ExportFormat.CSV:
        yield _line(list(_COLUMNS))
    async for entry in entries:
        yield _line(_cells(entry)) if form is ExportFormat.CSV else entry.line() + "\n"


def _cells(entry: ChainedEntry) -> list[str]:
    shown = {
        "sequence": str(entry.sequence),
        "at": entry.at.isoformat(),
        "id": str(entry.id),
        "previous": entry.previous.hex(),
        "digest": entry.digest.hex(),
    }
    return [shown[name] if name in shown else _harmless(getattr(entry, name)) for name in _COLUMNS]


def _harmless(text: str | None) -> str:
    """A spreadsheet runs what begins like a formula; an apostrophe makes it text."""
    if text is None:
        return ""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _line(cells: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()
