"""Rows out of the text of a CSV file, in bounded memory, whatever is in it.

A row that cannot be read costs one line: a quotation mark that is opened and never closed makes the csv module take
the rest of the file for one field, so what it swallowed beyond the first line is handed to it again.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import TextIO

import msgspec

from strata.inventory.imports.errors import ColumnsMissingError, FileUnreadableError
from strata.inventory.imports.mapping import Mapping
from strata.inventory.imports.refusals import Refusal, RefusalCode, excerpt, refusal

LINE_LIMIT = 64 * 1024
"""Characters in one line of the file."""
SPAN_LIMIT = 50
"""Lines that one row may take: a field in quotes may hold line breaks."""


class Record(msgspec.Struct, frozen=True):
    line: int
    fields: list[str]


class _SpanTooLongError(Exception):
    pass


class _Lines:
    """Feeds the csv module, remembers what it took for the current row, and takes lines back."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._returned: deque[str] = deque()
        self.taken: list[str] = []
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.taken) == SPAN_LIMIT:
            raise _SpanTooLongError
        line = self._returned.popleft() if self._returned else self._read()
        if not line:
            raise StopIteration
        self.number += 1
        self.taken.append(line)
        return line

    def give_back_all_but_first(self) -> None:
        self.number -= len(self.taken) - 1
        self._returned.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]

    def _read(self) -> str:
        line = self._text.readline(LINE_LIMIT)
        if is_cut(line):
            while is_cut(self._text.readline(LINE_LIMIT)):
                pass
        return line


def is_cut(line: str) -> bool:
    """Whether this is the beginning of a line that went on; the rest has been passed over."""
    return len(line) == LINE_LIMIT and not line.endswith(("\n", "\r"))


class CsvRecords:
    """The rows of one file; `columns` is known at once, the rest is read as it is iterated."""

    def __init__(self, text: TextIO, mapping: Mapping, file_name: str) -> None:
        self._lines = _Lines(text)
        self._encoding = mapping.document.file.encoding
        self._reader = csv.reader(self._lines, delimiter=mapping.document.file.delimiter, strict=True)
        self.columns = self._header(mapping, file_name)

    def _header(self, mapping: Mapping, file_name: str) -> tuple[str, ...]:
        for outcome in self._rows():
            if isinstance(outcome, Refusal):
                message = (
                    f"The first line of «{file_name}» should name the columns and cannot be read. {outcome.message}"
                )
                raise FileUnreadableError(message)
            columns = tuple(name.strip() for name in outcome.fields)
            wanted = mapping.columns()
            missing = [name for name in wanted if name not in columns]
            if missing:
                raise ColumnsMissingError(missing, [excerpt(name) for name in columns[:100]])
            doubled = [name for name in wanted if columns.count(name) > 1]
            if doubled:
                message = f"The first line of «{file_name}» has the column «{doubled[0]}» more than once; rename one."
                raise FileUnreadableError(message)
            return columns
        message = f"«{file_name}» is empty; it should begin with a line that names the columns."
        raise FileUnreadableError(message)

    def __iter__(self) -> Iterator[Record | Refusal]:
        width = len(self.columns)
        for outcome in self._rows():
            if isinstance(outcome, Refusal) or len(outcome.fields) == width:
                yield outcome
            else:
                yield self._ragged(outcome, width)

    def _rows(self) -> Iterator[Record | Refusal]:
        lines = self._lines
        while True:
            lines.taken.clear()
            try:
                fields = next(self._reader)
            except StopIteration:
                return
            except (csv.Error, _SpanTooLongError) as error:
                yield self._unreadable(error)
                continue
            if not fields:
                continue
            problem = self._problem()
            yield problem or Record(lines.number - len(lines.taken) + 1, fields)

    def _problem(self) -> Refusal | None:
        for line in self._lines.taken:
            if is_cut(line):
                return self._too_long()
            if "\0" in line:
                return self._refusal(RefusalCode.CONTROL_CHARACTER, "has a NUL character; take it out")
            if not line.isascii() and any("\ud800" <= character <= "\udfff" for character in line):
                predicate = f"has bytes that are not {self._encoding}; save the file in that encoding"
                return self._refusal(RefusalCode.BAD_ENCODING, predicate)
        return None

    def _unreadable(self, error: Exception) -> Refusal:
        if is_cut(self._lines.taken[0]):
            return self._too_long()
        self._lines.give_back_all_but_first()
        if isinstance(error, _SpanTooLongError) or "unexpected end" in str(error):
            return self._refusal(
                RefusalCode.UNREADABLE, "opens a quotation mark that is not closed; double or close it"
            )
        return self._refusal(
            RefusalCode.UNREADABLE, f"cannot be split into columns ({error}); mend its quotation marks"
        )

    def _too_long(self) -> Refusal:
        self._lines.give_back_all_but_first()
        predicate = f"begins a row with more than {LINE_LIMIT:,} characters in a line; that is hardly meant"
        return self._refusal(RefusalCode.ROW_TOO_LONG, predicate)

    def _ragged(self, record: Record, width: int) -> Refusal:
        self._lines.give_back_all_but_first()
        predicate = f"has {len(record.fields)} fields where the first line has {width}"
        return self._refusal(RefusalCode.WRONG_FIELD_COUNT, predicate)

    def _refusal(self, code: RefusalCode, predicate: str) -> Refusal:
        lines = self._lines
        text = excerpt(lines.taken[0].rstrip("\r\n"))
        return refusal(lines.number - len(lines.taken) + 1, code, predicate, {"text": text})
