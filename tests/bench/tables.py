"""What a benchmark shows: the same tables on the terminal and in docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich import table as rich_table


class Table(msgspec.Struct, frozen=True):
    rows: Sequence[Sequence[str]]
    """The first is the head; the first column says what the row is about."""
    title: str = ""

    def markdown(self) -> str:
        head, *body = self.rows
        rule = ["---", *("---:" for _ in head[1:])]
        lines = [f"| {' | '.join(row)} |" for row in (head, rule, *body)]
        return "\n".join([f"**{self.title}**", "", *lines] if self.title else lines)

    def rich(self) -> rich_table.Table:
        head, *body = self.rows
        shown = rich_table.Table(title=self.title, title_justify="left")
        for number, heading in enumerate(head):
            shown.add_column(heading, justify="right" if number else "left")
        for row in body:
            shown.add_row(*row)
        return shown
