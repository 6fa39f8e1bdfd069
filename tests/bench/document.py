"""Puts the tables of docs/benchmarks.md in from the raw results, so that no number there was typed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench import report
from tests.bench.tables import Table

Tables = Callable[[dict[str, Any]], Sequence[Table]]


def update(document: Path, directory: Path, tables: Mapping[str, Tables]) -> None:
    """Replaces what stands between `<!-- results: NAME -->` and `<!-- end -->` for every NAME.json in the directory."""
    text = document.read_text(encoding="utf-8")
    for name, tables_of in tables.items():
        file = directory / f"{name}.json"
        begin = f"<!-- results: {name} -->\n"
        before, found_begin, rest = text.partition(begin)
        _, end, after = rest.partition("<!-- end -->")
        if file.is_file() and found_begin and end:
            found = report.load(file)
            parts = [_provenance(found, file), *(table.markdown() for table in tables_of(found["results"]))]
            text = "".join([before, begin, "\n", "\n\n".join(parts), "\n\n", end, after])
    document.write_text(text, encoding="utf-8")


def _provenance(found: dict[str, Any], file: Path) -> str:
    machine, commit = found["machine"], found["commit"]
    state = "" if commit["clean"] else ", with uncommitted changes"
    return (
        f"{found['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux"
        f" {machine['kernel']}, load average {machine['load_average'][0]:.1f} at the start; commit {commit['id'][:12]}{state};"
        f" `{found['command']}`; raw: [{file.name}](benchmarks/{file.name})."
    )
