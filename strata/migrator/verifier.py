"""Compare what two homes really have of a tenant, each in a snapshot given (migrator protocol, step 4).

Each side reads its rows range by range, in the order of its own key, and adds their hashes up in buckets by the hash
of the key. Buckets that differ are read again on both sides, row by row: as many of them as hold ROWS_LOOKED_AT rows, so that
memory is the same for every tenant and every number of differences. Tables and columns come from each database's own
catalog: a table that only one side knows is a difference, not an oversight.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec

from strata.migrator.copy_sessions import Rest, Warrant, reading, restless
from strata.migrator.fitness import has_rows
from strata.migrator.hashing import bucket, row_hash
from strata.migrator.ranges import KeyRange, Walk
from strata.migrator.rests import Rests
from strata.migrator.tables import Column, Home, Table, TenantTables, describe
from strata.platform.database.names import literal, quoted

if TYPE_CHECKING:
    import asyncpg

_T = TypeVar("_T")
NAMED_PER_TABLE = 100
ROWS_PER_BUCKET = 500
MOST_BUCKETS = 4096
ROWS_LOOKED_AT = 50_000
"""Of a table and on each side: so many are in memory at once when buckets differ."""
FINEST_BUCKETS = 65_536
"""When a bucket turns out to hold more than ROWS_LOOKED_AT: tables that nobody has analysed are larger than they seem."""


class DifferenceKind(StrEnum):
    CHANGED = "changed"
    """The key is on both sides, the row is not the same."""
    MISSING = "missing"
    """In the source alone."""
    EXTRA = "extra"
    """In the target alone."""
    DOUBLED = "doubled"
    """More than once on a side: its primary key's index is broken or not there."""
    TABLE = "table"
    """One side alone has the table, and in it rows of the tenant."""
    COLUMN = "column"
    """The column is not the same on both sides."""


class Difference(msgspec.Struct, frozen=True):
    """Names keys and columns, never what is in them: reports are read by people whose data it is not."""

    kind: DifferenceKind
    table: str
    key: dict[str, str] = {}
    columns: tuple[str, ...] = ()


class TableComparison(msgspec.Struct, frozen=True):
    table: str
    source_rows: int
    target_rows: int
    differing_rows: int
    """How many differ, of which at most NAMED_PER_TABLE are named; at least so many, where more than ROWS_LOOKED_AT rows
    are in buckets that differ."""


class Comparison(msgspec.Struct, frozen=True):
    tables: tuple[TableComparison, ...]
    differences: tuple[Difference, ...]
    seconds: float

    @property
    def equal(self) -> bool:
        return not self.differences and not any(table.differing_rows for table in self.tables)

    @property
    def rows(self) -> int:
        return sum(table.source_rows for table in self.tables)


class Verifier:
    def __init__(self, source: Home, target: Home, *, warrant: Warrant | None = None, rest: Rest = restless) -> None:
        """Both sides rest as worker 0."""
        self._homes = (source, target)
        self._warrant = warrant or Warrant()
        self._rest = rest
        self.started = asyncio.Event()
        """Both sides stand in their snapshots: the exporting sessions may go on."""

    async def compare(
        self,
        source_snapshot: str | None,
        target_snapshot: str | None,
        progress: Callable[[TableComparison], None] | None = None,
    ) -> Comparison:
        """Every row of every table; `progress` hears of each table when it is through. Writes nothing, locks nothing."""
        begun = time.monotonic()
        source, target = self._homes
        async with (
            reading(source, source_snapshot, self._warrant) as at_source,
            reading(target, target_snapshot, self._warrant) as at_target,
        ):
            sides = (self._side(source, at_source), self._side(target, at_target))
            here, there = await _together(sides[0].describe(), sides[1].describe())
            self.started.set()
            found = [*await _lone_tables(sides[0], here, there), *await _lone_tables(sides[1], there, here)]
            compared = []
            for table in here.tables:
                if table.name not in there.by_name:
                    continue
                pair = _Pair(sides, (table, there.by_name[table.name]))
                outcome, differences = await pair.compare()
                compared.append(outcome)
                found += differences
                if progress is not None:
                    progress(outcome)
        return Comparison(tuple(compared), tuple(found), time.monotonic() - begun)

    def _side(self, home: Home, connection: asyncpg.Connection) -> _Side:
        return _Side(home, connection, Rests(partial(self._rest, 0)))


class _Sum(msgspec.Struct):
    """Of the rows of a bucket."""

    rows: int = 0
    hashes: int = 0


class _Side:
    """One of the two databases, in its snapshot."""

    def __init__(self, home: Home, connection: asyncpg.Connection, rests: Rests) -> None:
        self._rests = rests
        self.home = home
        self.connection = connection

    async def describe(self) -> TenantTables:
        return await describe(self.connection, self.home.schema_name)

    async def sums(self, table: Table, columns: Sequence[Column], buckets: int) -> dict[int, _Sum]:
        sums: dict[int, _Sum] = {}
        select = f"SELECT {bucket(table, buckets)}, count(*), sum({row_hash(columns)}) FROM {table.qualified} t"  # noqa: S608 - names from pg_catalog
        async for row in self._read(table, lambda condition: f"{select} WHERE {condition} GROUP BY 1"):
            total = sums.setdefault(row[0], _Sum())
            total.rows += row[1]
            total.hashes += int(row[2])
        return sums

    async def hashes(
        self, table: Table, columns: Sequence[Column], buckets: int, wanted: list[int]
    ) -> list[tuple[tuple[str, ...], int]]:
        """Key and hash of every row in the wanted buckets."""
        keys = "".join(f"t.{quoted(column.name)}::text, " for column in table.key)
        select = f"SELECT {keys}{row_hash(columns)}"
        filtered = f"{bucket(table, buckets)} IN ({', '.join(map(str, wanted))})"
        # OFFSET 0: it rests among all the rows that are looked at, not among the wanted ones.
        rows = self._read(
            table,
            lambda condition: (
                f"{select} FROM (SELECT * FROM {table.qualified} t WHERE {condition} OFFSET 0) t WHERE {filtered}"  # noqa: S608 - names from pg_catalog
            ),
        )
        return [(tuple(row)[:-1], row[-1]) async for row in rows]

    async def column_hashes(self, table: Table, columns: Sequence[Column], key: tuple[str, ...]) -> tuple[int, ...]:
        """Of the row with that key, one for each column."""
        hashes = ", ".join(row_hash([column]) for column in columns)
        condition = KeyRange(table, self.home.tenant_literal, None, None).condition
        named = "".join(
            f" AND t.{quoted(column.name)} = {literal(value)}::{column.type}"
            for column, value in zip(table.key, key, strict=True)
        )
        row = await self.connection.fetchrow(f"SELECT {hashes} FROM {table.qualified} t WHERE {condition}{named}")  # noqa: S608 - names from pg_catalog, values as literals
        return tuple(row) if row is not None else ()

    async def _read(self, table: Table, query: Callable[[str], str]) -> AsyncIterator[asyncpg.Record]:
        walk = Walk(table, self.home)
        while True:
            begun = time.monotonic()
            found = await walk.take(self.connection)
            if found is None:
                return
            part = await self.connection.fetch(query(found.condition + self._rests.condition))
            lasted_s = time.monotonic() - begun
            # How many rows the last range has had is not known here.
            await self._rests.lasted(self.connection, lasted_s, 0 if walk.over else walk.rows)
            walk.lasted(lasted_s, walk.rows)
            for row in part:
                yield row


class _Pair:
    """A table, as it is on both sides."""

    def __init__(self, sides: tuple[_Side, _Side], tables: tuple[Table, Table]) -> None:
        self._sides = sides
        # One key for both: a target whose primary key has not been built is looked through by the source's.
        self._tables = (tables[0], msgspec.structs.replace(tables[1], primary_key=tables[0].primary_key))
        here, there = ({column.name: column for column in table.columns} for table in tables)
        self._unlike = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
        common = sorted(name for name in here.keys() & there.keys() if here[name].type == there[name].type)
        self._columns = [here[name] for name in common]
        self._buckets = _buckets_for(max(table.estimated_rows for table in tables), MOST_BUCKETS)

    async def compare(self) -> tuple[TableComparison, list[Difference]]:
        name = self._tables[0].name
        differences = [Difference(DifferenceKind.COLUMN, name, columns=(column,)) for column in self._unlike]
        here, there = await self._sums()
        counts = [sum(each.rows for each in sums.values()) for sums in (here, there)]
        if any(max(_rows_in(number, here, there)) > ROWS_LOOKED_AT for number in _suspect(here, there)):
            self._buckets = max(self._buckets, _buckets_for(max(counts), FINEST_BUCKETS))
            here, there = await self._sums()
        differing = 0
        if suspect := _suspect(here, there):
            looked_at = _at_hand(suspect, here, there)
            named, differing = await self._rows(looked_at)
            differences += named
            for number in suspect[len(looked_at) :]:
                rows = _rows_in(number, here, there)
                differing += max(1, abs(rows[0] - rows[1]))
        return TableComparison(name, counts[0], counts[1], differing), differences

    async def _sums(self) -> tuple[dict[int, _Sum], dict[int, _Sum]]:
        return await self._both(lambda side, table: side.sums(table, self._columns, self._buckets))

    async def _rows(self, suspect: list[int]) -> tuple[list[Difference], int]:
        """The rows of suspect buckets that differ: the first of them named, and how many they are."""
        here, there = await self._both(lambda side, table: side.hashes(table, self._columns, self._buckets, suspect))
        differing = sorted({key for key, _ in (Counter(here) - Counter(there)) + (Counter(there) - Counter(here))})
        keys = (Counter(key for key, _ in here), Counter(key for key, _ in there))
        return [await self._named(key, keys) for key in differing[:NAMED_PER_TABLE]], len(differing)

    async def _named(
        self, key: tuple[str, ...], keys: tuple[Counter[tuple[str, ...]], Counter[tuple[str, ...]]]
    ) -> Difference:
        table = self._tables[0]
        names = {column.name: value for column, value in zip(table.key, key, strict=True)}
        counts = (keys[0][key], keys[1][key])
        if max(counts) > 1:
            return Difference(DifferenceKind.DOUBLED, table.name, names)
        if counts == (1, 1):
            hashes = await self._both(lambda side, each: side.column_hashes(each, self._columns, key))
            columns = [column.name for column, here, there in zip(self._columns, *hashes, strict=True) if here != there]
            return Difference(DifferenceKind.CHANGED, table.name, names, tuple(columns))
        return Difference(DifferenceKind.MISSING if counts[0] else DifferenceKind.EXTRA, table.name, names)

    async def _both(self, question: Callable[[_Side, Table], Awaitable[_T]]) -> tuple[_T, _T]:
        (here, there), (table, other) = self._sides, self._tables
        return await _together(question(here, table), question(there, other))


def _buckets_for(rows: int, most: int) -> int:
    """A power of two."""
    return min(most, 1 << (rows // ROWS_PER_BUCKET).bit_length())


def _suspect(here: Mapping[int, _Sum], there: Mapping[int, _Sum]) -> list[int]:
    return sorted(number for number in here.keys() | there.keys() if here.get(number) != there.get(number))


def _rows_in(number: int, *sides: Mapping[int, _Sum]) -> list[int]:
    return [sums[number].rows if number in sums else 0 for sums in sides]


def _at_hand(suspect: Sequence[int], here: Mapping[int, _Sum], there: Mapping[int, _Sum]) -> list[int]:
    """The first of them, as many as hold ROWS_LOOKED_AT rows on either side, and one at least."""
    taken: list[int] = []
    rows = 0
    for number in suspect:
        rows += max(_rows_in(number, here, there))
        if taken and rows > ROWS_LOOKED_AT:
            break
        taken.append(number)
    return taken


async def _lone_tables(side: _Side, own: TenantTables, others: TenantTables) -> list[Difference]:
    """Tables that only this side has, and has rows of the tenant in."""
    return [
        Difference(DifferenceKind.TABLE, table.name)
        for table in own.tables
        if table.name not in others.by_name and await has_rows(side.connection, side.home, table)
    ]


async def _together(here: Awaitable[_T], there: Awaitable[_T]) -> tuple[_T, _T]:
    """Both sides at the same time; when one fails, the other is stopped."""

    async def answer(question: Awaitable[_T]) -> _T:
        return await question

    try:
        async with asyncio.TaskGroup() as group:
            tasks = group.create_task(answer(here)), group.create_task(answer(there))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return tasks[0].result(), tasks[1].result()
