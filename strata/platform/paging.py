"""Lists in pages: a stable order on unique columns, and a cursor that says where the last page ended.

A page costs the same wherever it lies in the list, and rows that come or go meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import Select, literal, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from strata.platform.errors import BadRequestError

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
_LONGEST_CURSOR = 1024

AnySelect = Select[*tuple[Any, ...]]

R = TypeVar("R")
T = TypeVar("T")


class BadCursorError(BadRequestError):
    code = "bad-cursor"
    title = "Cursor not understood"

    def __init__(self) -> None:
        super().__init__("This cursor is none of this list; begin again without it, and pass next_cursor on unchanged.")


class Paging(msgspec.Struct, frozen=True):
    limit: int = DEFAULT_LIMIT
    cursor: str | None = None
    fields: str | None = None
    """Names of the fields wanted, separated by commas; None: all of them."""


class Page(msgspec.Struct, Generic[T]):
    items: list[T]
    next_cursor: str | None = None
    """Pass it as `cursor` for the next page; null: this was the last."""


def encode_cursor(values: Sequence[object]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(values)).rstrip(b"=").decode("ascii")


def decode_cursor(cursor: str, types: Sequence[type]) -> tuple[Any, ...]:
    """The values of the last row, each of its type; BadCursorError for anything that `encode_cursor` did not make."""
    if len(cursor) > _LONGEST_CURSOR:
        raise BadCursorError
    try:
        document = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        values: tuple[Any, ...] = msgspec.json.decode(document, type=tuple[tuple(types)])  # type: ignore[misc]
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise BadCursorError from error
    for value in values:
        # What PostgreSQL cannot hold would be its error to report, and too late.
        if (isinstance(value, str) and "\0" in value) or (isinstance(value, int) and abs(value) >= 2**63):
            raise BadCursorError
    return values


class Keyset:
    """The order of one list: columns that together are unique, all ascending or all descending."""

    def __init__(self, *columns: InstrumentedAttribute[Any], descending: bool = False) -> None:
        self.columns = columns
        self._descending = descending
        self._types = [column.type.python_type for column in columns]
        self._order = [column.desc() if descending else column.asc() for column in columns]

    def select_page(self, statement: AnySelect, paging: Paging) -> AnySelect:
        """The statement, narrowed to what follows the cursor, in order, with one row more than the page holds."""
        if paging.cursor is not None:
            values = decode_cursor(paging.cursor, self._types)
            first = self.columns[0]
            if len(values) == 1:
                statement = statement.where(first < values[0] if self._descending else first > values[0])
            else:
                row = tuple_(*self.columns)
                last = tuple_(
                    *(literal(value, column.type) for value, column in zip(values, self.columns, strict=True))
                )
                # The first column alone besides: over several tables the planner finds an index for nothing else.
                statement = statement.where(
                    row < last if self._descending else row > last,
                    first <= values[0] if self._descending else first >= values[0],
                )
        return statement.order_by(*self._order).limit(paging.limit + 1)

    def page(
        self,
        rows: Sequence[R],
        paging: Paging,
        *,
        item: Callable[[R], T],
        position: Callable[[R], Sequence[object]],
    ) -> Page[T]:
        """`position`: a row's values of the columns of the order."""
        shown = rows[: paging.limit]
        more = len(rows) > paging.limit
        return Page([item(row) for row in shown], encode_cursor(position(shown[-1])) if more else None)
