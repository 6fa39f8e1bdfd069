"""What a command says: a JSON document for programs or a table for people, on standard output; errors on the other."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from strata.platform.errors import StrataError

# In a pipe there is no width to fit into, and a slug cut short is no slug.
_PIPE_WIDTH = 240


def console(*, stderr: bool = False) -> Console:
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, markup=False, width=None if terminal else _PIPE_WIDTH)


def print_json(document: object) -> None:
    """One document on one line, out at once: whoever reads lines shall not wait for a buffer to fill."""
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()


def print_line(text: str, style: str = "") -> None:
    """A sentence or a value for a person; never wrapped, so that a token can be copied whole."""
    console().print(Text(text, style=style), soft_wrap=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    if table.row_count:
        console().print(table)
    else:
        print_line(empty)


def print_facts(facts: Mapping[str, object]) -> None:
    """Names and values of one thing, one a line."""
    print_table(("", ""), facts.items(), empty="")


def print_failure(error: StrataError, *, as_json: bool) -> None:
    if as_json:
        document = {"code": error.code, "title": error.title, "detail": error.detail, **error.extra}
        sys.stderr.write(msgspec.json.encode(document).decode() + "\n")
        sys.stderr.flush()
    else:
        console(stderr=True).print(Text(error.detail, style="red"), soft_wrap=True)
