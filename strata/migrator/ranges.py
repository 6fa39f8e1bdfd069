"""A tenant's rows of one table in ranges of its primary key, one after the other, without a gap or an overlap."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from strata.migrator.tables import TENANT_COLUMN, Column, Home, Table
from strata.platform.database.names import literal, quoted

if TYPE_CHECKING:
    import asyncpg

FIRST_ROWS, FEWEST_ROWS, MOST_ROWS = 10_000, 200, 200_000
RANGE_S = 0.3
"""How long a range is meant to last. While its transaction writes, no slot can be made in the target's cluster."""

Key = tuple[str, ...]
"""The values of a key's columns as text."""


class KeyRange(msgspec.Struct, frozen=True):
    """Keys above `after` up to and including `upto`; None: no bound. In one snapshot, or it means nothing."""

    table: Table
    tenant_literal: str
    after: Key | None
    upto: Key | None

    @property
    def condition(self) -> str:
        """Always begins with the tenant: a range without it would read everybody's rows."""
        parts = [f"{quoted(TENANT_COLUMN)} = {self.tenant_literal}"]
        if self.after is not None:
            parts.append(f"{_row(self.table.key)} > {_values(self.table.key, self.after)}")
        if self.upto is not None:
            parts.append(f"{_row(self.table.key)} <= {_values(self.table.key, self.upto)}")
        return " AND ".join(parts)


class Walk:
    """Hands out the ranges of one table; several workers may take from it, each with its own session in one snapshot."""

    def __init__(self, table: Table, home: Home) -> None:
        self.table = table
        self._tenant = home.tenant_literal
        self._after: Key | None = None
        self._turn = asyncio.Lock()
        self.rows = FIRST_ROWS
        """Of the next range, at most."""
        self.over = False

    async def take(self, connection: asyncpg.Connection) -> KeyRange | None:
        """The next range; None when there is no other. Finding its end costs an index-only scan of it."""
        async with self._turn:
            if self.over:
                return None
            rest = KeyRange(self.table, self._tenant, self._after, None)
            upto = await self._end(connection, rest)
            self._after, self.over = upto, upto is None
            return KeyRange(self.table, self._tenant, rest.after, upto)

    async def _end(self, connection: asyncpg.Connection, rest: KeyRange) -> Key | None:
        key = self.table.key
        if not key:
            return None
        # t.id: a bare id in ORDER BY would be the text that is selected, and 10 comes before 9 in text.
        values = ", ".join(f"t.{quoted(column.name)}::text" for column in key)
        order = ", ".join(f"t.{quoted(column.name)}" for column in key)
        found = await connection.fetchrow(
            f"SELECT {values} FROM {self.table.qualified} t WHERE {rest.condition}"  # noqa: S608 - names from pg_catalog, values as literals
            f" ORDER BY {order} LIMIT 1 OFFSET {self.rows - 1}"
        )
        return tuple(found) if found is not None else None

    def lasted(self, seconds: float, rows: int) -> None:
        """What a range of `rows` took: the next ones are made longer or shorter by it."""
        if rows:
            fitting = rows * RANGE_S / max(seconds, 0.001)
            self.rows = round(min(max(fitting, self.rows / 4, FEWEST_ROWS), self.rows * 4, MOST_ROWS))


def _row(key: tuple[Column, ...]) -> str:
    names = ", ".join(quoted(column.name) for column in key)
    return names if len(key) == 1 else f"({names})"


def _values(key: tuple[Column, ...], values: Key) -> str:
    typed = ", ".join(f"{literal(value)}::{column.type}" for column, value in zip(key, values, strict=True))
    return typed if len(key) == 1 else f"({typed})"
