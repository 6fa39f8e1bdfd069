"""Reading an audit, whichever it is: by page, and whole in the order of its chain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Text, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute

from strata.platform.paging import AnySelect, Keyset, Page, Paging
from strata.tenancy.audit.chain import ChainedEntry

_AT_ONCE = 1000
_OF_LINK = frozenset({"sequence", "previous", "digest"})

Reader = AsyncSession | AsyncConnection
Opening = Callable[[], AbstractAsyncContextManager[Reader]]


class EntryOut(msgspec.Struct, frozen=True):
    sequence: int
    at: datetime
    actor: str
    action: str
    subject: str
    source: str | None
    authentication: str | None
    request: str | None
    detail: dict[str, Any]


class EntryFilter(msgspec.Struct, frozen=True):
    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    since: datetime | None = None
    before: datetime | None = None


class Audit:
    """Rows of `link` have an entry's place in the chain, those of `entry` all else; `joined`: which belong together, where
    these are two tables.
    """

    def __init__(
        self,
        entry: type[DeclarativeBase],
        link: type[DeclarativeBase],
        joined: ColumnElement[bool] | None = None,
    ) -> None:
        self._entry = entry
        self._link = link
        self._joined = joined
        self._sequence = self._column("sequence")
        self._order = Keyset(self._sequence, descending=True)
        self._shown = self._select(*map(self._column, EntryOut.__struct_fields__))
        self._chained = self._select(
            # As the database spells it: so it was hashed.
            *(
                cast(self._column(name), Text) if name == "detail" else self._column(name)
                for name in ChainedEntry.__struct_fields__
            )
        )

    def matching(self, wanted: EntryFilter) -> Iterator[ColumnElement[bool]]:
        for name in ("actor", "action", "subject"):
            if (value := getattr(wanted, name)) is not None:
                yield self._column(name) == value
        if wanted.since is not None:
            yield self._column("at") >= wanted.since
        if wanted.before is not None:
            yield self._column("at") < wanted.before

    async def page(self, reader: Reader, paging: Paging, *conditions: ColumnElement[bool]) -> Page[EntryOut]:
        """The newest first."""
        rows = (await reader.execute(self._order.select_page(self._shown.where(*conditions), paging))).all()
        return self._order.page(rows, paging, item=lambda row: EntryOut(*row), position=lambda row: (row.sequence,))

    async def every(self, opening: Opening, *conditions: ColumnElement[bool]) -> AsyncIterator[ChainedEntry]:
        """The oldest first, up to the newest of the moment it began; in transactions of their own, so that none is long."""
        async with opening() as reader:
            newest: int | None = await reader.scalar(select(func.max(self._sequence)))
        after = 0
        while newest is not None:
            statement = (
                self._chained.where(self._sequence > after, self._sequence <= newest, *conditions)
                .order_by(self._sequence)
                .limit(_AT_ONCE)
            )
            async with opening() as reader:
                rows = (await reader.execute(statement)).all()
            for row in rows:
                yield ChainedEntry(*row)
            if len(rows) < _AT_ONCE:
                return
            after = rows[-1].sequence

    def _column(self, name: str) -> InstrumentedAttribute[Any]:
        column: InstrumentedAttribute[Any] = getattr(self._link if name in _OF_LINK else self._entry, name)
        return column

    def _select(self, *columns: ColumnElement[Any] | InstrumentedAttribute[Any]) -> AnySelect:
        statement: AnySelect = select(*columns)
        return statement if self._joined is None else statement.join_from(self._link, self._entry, self._joined)
