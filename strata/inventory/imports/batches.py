"""Lines to movements, movements to batches: each batch is one transaction, and ends where a movement ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from strata.inventory.imports.records import Record
from strata.inventory.imports.refusals import Refusal
from strata.inventory.imports.rows import Interpreter, Line

MOVEMENT_LINES = 1000
"""The most lines of one movement; a file without groups would be a single one otherwise."""


class Group(msgspec.Struct, frozen=True):
    """Lines that follow one another and become one movement."""

    lines: list[Line]

    @property
    def first(self) -> Line:
        return self.lines[0]

    def takes(self, line: Line) -> bool:
        first = self.lines[0]
        return line.group == first.group and line.rule == first.rule and len(self.lines) < MOVEMENT_LINES


class Batch(msgspec.Struct):
    rows: int = 0
    """Rows of the file that this batch settles."""
    groups: list[Group] = []
    refusals: list[Refusal] = []


def batches(outcomes: Iterable[Record | Refusal], interpreter: Interpreter, size: int) -> Iterator[Batch]:
    """Batches of `size` rows or a little more: cut where a movement ends, and at twice the size wherever it is."""
    batch = Batch()
    group: Group | None = None
    for outcome in outcomes:
        if batch.rows >= 2 * size:
            yield batch
            batch, group = Batch(), None
        read = interpreter.read(outcome) if isinstance(outcome, Record) else outcome
        if isinstance(read, Refusal):
            batch.refusals.append(read)
        else:
            if group is None or not group.takes(read):
                if batch.rows >= size:
                    yield batch
                    batch = Batch()
                group = Group([])
                batch.groups.append(group)
            group.lines.append(read)
        batch.rows += 1
    if batch.rows:
        yield batch
