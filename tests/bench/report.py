"""Raw results into docs/benchmarks, one file a benchmark, and its tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from tests.bench.machine import ROOT
from tests.bench.tables import Table

DIRECTORY = ROOT / "docs" / "benchmarks"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
_console = Console(width=140)


def save(name: str, facts: dict[str, Any], plan: msgspec.Struct, found: dict[str, Any], directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{name}.json"
    document = {"benchmark": name, **facts, "plan": plan, "results": found}
    file.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    return file


def load(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(file.read_bytes())
    return found


def show(tables: Sequence[Table]) -> None:
    for table in tables:
        _console.print(table.rich())
