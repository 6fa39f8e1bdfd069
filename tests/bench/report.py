"""Raw results into docs/benchmarks, one file a benchmark, and a table on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from tests.bench.machine import ROOT

DIRECTORY = ROOT / "docs" / "benchmarks"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
_console = Console(width=140)


def save(name: str, facts: dict[str, Any], plan: dict[str, Any] | None, found: dict[str, Any], directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{name}.json"
    document = {"benchmark": name, **facts, "plan": plan, "results": found}
    file.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    return file


def show(title: str, measured: dict[str, Any]) -> None:
    """`measured`: what slices.results gives, for one piece of work at one number of connections."""
    bases = [name for name in measured if any(name in each["ratio_to"] for each in measured.values())]
    table = Table(title=title, title_justify="left")
    for heading in ("", "p50 µs", "p95", "p99", "requests/s", "CPU µs app", "CPU µs PostgreSQL"):
        table.add_column(heading, justify="left" if not heading else "right")
    refused = any(each["refused"] for each in measured.values())
    if refused:
        table.add_column("refused", justify="right")
    for base in bases:
        table.add_column(f"p50 ÷ {base}", justify="right")
    for name, each in measured.items():
        latency, cpu = each["latency_us"], each["cpu_us_per_request"]
        row = [latency["p50"], latency["p95"], latency["p99"], each["requests_per_s"]]
        row += [cpu["application"], cpu["postgresql"]]
        if refused:
            row.append(each["refused"])
        table.add_row(name, *(f"{value:,.0f}" for value in row), *(_ratio(each["ratio_to"], base) for base in bases))
    _console.print(table)


def show_round_trips(found: dict[str, Any]) -> None:
    table = Table(title="Round trips on the wire per request, when warm", title_justify="left")
    works = list(next(iter(found.values())))
    table.add_column("")
    for work in works:
        table.add_column(work)
    for name, each in found.items():
        table.add_row(name, *(", ".join(f"{where} {n:g}" for where, n in each[work]["then"].items()) for work in works))
    _console.print(table)


def _ratio(ratios: dict[str, Any], base: str) -> str:
    if base not in ratios:
        return ""
    found = ratios[base]["p50"]
    low, high = found["middle_half"]
    return f"{found['median']:.2f} ({low:.2f} to {high:.2f})"
