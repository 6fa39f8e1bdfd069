"""How one kind of thing is listed: which column fills each field, in which order, and only what the caller selects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

import msgspec
from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncSession

from strata.platform.fields import FieldSelection
from strata.platform.paging import AnySelect, Keyset, Page, Paging

T = TypeVar("T", bound=msgspec.Struct)


class Listing(Generic[T]):
    """`statement` selects one column for each field of `item`, in their order, with all the joins they need.

    `make`: an item from all of its columns, where they do not fit as they are.
    """

    def __init__(
        self,
        item: type[T],
        statement: AnySelect,
        order: Keyset,
        *,
        make: Callable[[Sequence[Any]], T] | None = None,
    ) -> None:
        self._make = make or (lambda values: item(*values))
        self.fields = FieldSelection(item)
        self.statement = statement
        self._order = order
        self._column_of = dict(zip(self.fields.all, statement.selected_columns, strict=True))

    async def page(self, session: AsyncSession, paging: Paging, *conditions: ColumnElement[bool]) -> Page[T]:
        """With `paging.fields` the items are dictionaries of just these, read as just these from the database."""
        selected = self.fields.parse(paging.fields)
        names = selected or self.fields.all
        columns = [self._column_of[name] for name in names]
        statement = self.statement.with_only_columns(*columns, *self._order.columns, maintain_column_froms=True)
        rows = (await session.execute(self._order.select_page(statement.where(*conditions), paging))).all()
        shown = len(names)

        def item(row: Any) -> T:  # noqa: ANN401 - a row of whatever is listed
            values = row[:shown]
            return self._make(values) if selected is None else cast("T", dict(zip(names, values, strict=True)))

        return self._order.page(rows, paging, item=item, position=lambda row: row[shown:])

    async def one(self, session: AsyncSession, *conditions: ColumnElement[bool]) -> T | None:
        row = (await session.execute(self.statement.where(*conditions))).one_or_none()
        return None if row is None else self._make(row)
