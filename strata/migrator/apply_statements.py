"""The statements that bring a batch's net changes to a table: one for all rows that are treated alike.

Values travel as text[] parameters, one array a column, and are cast on the target: that takes every type, arrays of
arrays and enumerations included, needs no staging table, and a whole batch goes out in one round trip.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from functools import lru_cache

import msgspec
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

from strata.migrator.apply_tables import TENANT_COLUMN, TargetTable
from strata.migrator.coalescing import Key, Net, key_values, net_rows
from strata.migrator.pgoutput import NULL, SHORT, UNCHANGED, RawRow, Value, plain_columns, values
from strata.migrator.replication_errors import ForeignRowError
from strata.platform.database.names import literal, quoted

# ruff: noqa: S608 - all that goes into these statements as text is quoted names, types from the catalog and a UUID

_TEXT_OID = 25
_TEXT_ARRAY_OID = 1009
_ARRAY_HEADER = struct.Struct("!iiIii")
_LENGTH = struct.Struct("!i")
_KEPT, _GIVEN = b"k", b"g"
_FEW = 100
_AT_ONCE = 200
"""Rows that are taken apart together: more of them no longer fit the processor's nearest memory."""
# Stands for a parameter until _sql: no name can hold a zero byte.
_PLACE = "\0"


class TextArray(msgspec.Struct, frozen=True):
    """A text[] as PostgreSQL's binary protocol has it."""

    data: bytes


class TextArrayDumper(Dumper):
    format = Format.BINARY
    oid = _TEXT_ARRAY_OID

    def dump(self, obj: TextArray) -> Buffer:
        return obj.data


class Operation(StrEnum):
    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    REWRITE = "UPDATE, as DELETE and INSERT,"


class Statement(msgspec.Struct, frozen=True):
    operation: Operation
    table: TargetTable
    sql: str
    arrays: list[TextArray]
    keys: Sequence[Key]
    exact: bool
    """Every key must be found; otherwise copy and stream do not fit together."""


def statements(
    table: TargetTable, rows: dict[Key, tuple[Net, RawRow]], tenant: bytes, *, vacate: bool
) -> Iterator[Statement]:
    """Deletes, then updates, then inserts: so an insert never meets a unique value that an update gives up.

    Two updated rows may still swap unique values. `vacate` takes all updated rows away before it puts any back: it
    always works, and costs more. `tenant`: the tenant's id as it must stand in every row.
    """
    rows = _in_order(rows)
    if keys := [key for key, _ in net_rows(rows, Net.DELETE)]:
        yield _delete(table, tenant, keys, exact=True)
    if keys := [key for key, _ in net_rows(rows, Net.DISCARD) + net_rows(rows, Net.REPLACE)]:
        yield _delete(table, tenant, keys, exact=False)
    updated = net_rows(rows, Net.UPDATE)
    if updated and (vacate or table.rewrites_rows):
        yield rewrite(table, tenant, updated)
    elif updated:
        yield from _updates(table, tenant, updated)
    if inserted := net_rows(rows, Net.INSERT) + net_rows(rows, Net.REPLACE):
        arrays = _images(table, tenant, [row for _, row in inserted]).arrays(range(len(table.columns)))
        yield Statement(Operation.INSERT, table, _insert_sql(table), arrays, [key for key, _ in inserted], exact=True)


def rewrite(table: TargetTable, tenant: bytes, rows: Sequence[tuple[Key, RawRow]]) -> Statement:
    """Take the rows with these keys away and put the new ones in their places; what was not sent is kept."""
    taken = [values(row) for _, row in rows]
    kept = [
        _element(b"".join(_KEPT if value is UNCHANGED else _GIVEN for value in row)) if UNCHANGED in row else NULL
        for row in taken
    ]
    given = _Images(table, tenant)
    for row in taken:
        given.add([NULL if value is UNCHANGED else value for value in row])
    arrays = [
        *given.arrays(range(len(table.columns))),
        _array(kept, len(kept)),
        *key_arrays([key for key, _ in rows]),
    ]
    return Statement(
        Operation.REWRITE, table, _rewrite_sql(table, tenant), arrays, [key for key, _ in rows], exact=True
    )


def missing_keys_sql(table: TargetTable, tenant: bytes) -> str:
    source = _unnest(len(table.key.positions))
    return _sql(
        f"SELECT {', '.join(f's.c{number}' for number in range(len(table.key.positions)))} FROM {source} "
        f"WHERE NOT EXISTS (SELECT FROM {table.qualified} AS t WHERE {_match(table, tenant)}) LIMIT 5"
    )


def key_arrays(keys: Iterable[Key]) -> list[TextArray]:
    return [_array(column, len(column)) for column in zip(*map(key_values, keys), strict=True)]


def _delete(table: TargetTable, tenant: bytes, keys: Sequence[Key], *, exact: bool) -> Statement:
    return Statement(Operation.DELETE, table, _delete_sql(table, tenant), key_arrays(keys), keys, exact)


def _updates(table: TargetTable, tenant: bytes, rows: Sequence[tuple[Key, RawRow]]) -> Iterator[Statement]:
    """One for each set of columns that were sent: a value kept outside its row and unchanged is not among them."""
    everything = tuple(range(len(table.columns)))
    shapes: dict[tuple[int, ...], tuple[list[Key], _Images]] = {}
    for first in range(0, len(rows), _AT_ONCE):
        some = rows[first : first + _AT_ONCE]
        if (columns := plain_columns([row for _, row in some])) is not None:
            keys, images = shapes.setdefault(everything, ([], _Images(table, tenant)))
            keys += [key for key, _ in some]
            images.add_plain(columns, len(some))
            continue
        for key, row in some:
            taken = values(row)
            shape = everything
            if UNCHANGED in taken:
                shape = tuple(number for number in everything if taken[number] is not UNCHANGED)
            keys, images = shapes.setdefault(shape, ([], _Images(table, tenant)))
            keys.append(key)
            images.add(taken)
    for shape, (keys, images) in shapes.items():
        if not set(shape) <= set(table.key.positions):  # otherwise there is nothing to set
            arrays = images.arrays(shape)
            yield Statement(Operation.UPDATE, table, _update_sql(table, tenant, shape), arrays, keys, exact=True)


def _in_order(rows: dict[Key, tuple[Net, RawRow]]) -> dict[Key, tuple[Net, RawRow]]:
    """Neighbours in the key's index are looked up one after the other, in memory that is at hand: a sixth less work for
    the target. Few rows stay as they came, in which order a unique value is given up before it is taken.
    """
    return {key: rows[key] for key in sorted(rows)} if len(rows) > _FEW else rows


class _Images:
    """Rows of one table as arrays, one a column; raises when one is not the tenant's."""

    def __init__(self, table: TargetTable, tenant: bytes) -> None:
        self._table = table
        self._tenant = _element(tenant)
        self._parts: list[list[Value]] = [[] for _ in table.columns]
        self._count = 0

    def add(self, taken: Sequence[Value]) -> None:
        self._check(taken[self._table.tenant_position] == self._tenant)
        self._count += 1
        for part, value in zip(self._parts, taken, strict=True):
            part.append(value)

    def add_plain(self, columns: Sequence[Sequence[bytes]], count: int) -> None:
        self._check(set(columns[self._table.tenant_position]) == {self._tenant[len(SHORT) :]})
        self._count += count
        for part, column in zip(self._parts, columns, strict=True):
            part.append(SHORT + SHORT.join(column))

    def arrays(self, shape: Sequence[int]) -> list[TextArray]:
        return [_array(self._parts[number], self._count) for number in shape]

    def _check(self, ours: bool) -> None:
        if not ours:
            raise ForeignRowError(self._table.label)


def _element(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


def _images(table: TargetTable, tenant: bytes, rows: Sequence[RawRow]) -> _Images:
    """Of rows of which every value was sent."""
    images = _Images(table, tenant)
    for first in range(0, len(rows), _AT_ONCE):
        some = rows[first : first + _AT_ONCE]
        if (columns := plain_columns(some)) is not None:
            images.add_plain(columns, len(some))
        else:
            for row in some:
                images.add(values(row))
    return images


def _array(elements: Sequence[Value], count: int) -> TextArray:
    return TextArray(b"".join((_ARRAY_HEADER.pack(1, 1, _TEXT_OID, count, 1), *elements)))  # type: ignore[arg-type]


def _sql(text: str) -> str:
    """A percent sign in a name is no placeholder."""
    return text.replace("%", "%%").replace(_PLACE, "%b")


def _unnest(columns: int) -> str:
    names = ", ".join(f"c{number}" for number in range(columns))
    return f"unnest({', '.join([_PLACE] * columns)}) AS s ({names})"


def _cast(table: TargetTable, position: int, source: str) -> str:
    return f"{source}::{table.columns[position].type}"


def _match(table: TargetTable, tenant: bytes, *, first: int = 0, places: Sequence[int] | None = None) -> str:
    """The row with the key, and of this tenant: also what lets the planner see which partition is meant."""
    numbers = places if places is not None else range(first, first + len(table.key.positions))
    conditions = [
        f"t.{quoted(table.columns[position].name)} = {_cast(table, position, f's.c{number}')}"
        for number, position in zip(numbers, table.key.positions, strict=True)
    ]
    return " AND ".join([*conditions, f"t.{quoted(TENANT_COLUMN)} = {literal(tenant.decode())}"])


@lru_cache(maxsize=1024)
def _delete_sql(table: TargetTable, tenant: bytes) -> str:
    source = _unnest(len(table.key.positions))
    return _sql(f"DELETE FROM {table.qualified} AS t USING {source} WHERE {_match(table, tenant)}")


@lru_cache(maxsize=1024)
def _insert_sql(table: TargetTable) -> str:
    names = ", ".join(quoted(column.name) for column in table.columns)
    given = ", ".join(_cast(table, number, f"s.c{number}") for number in range(len(table.columns)))
    return _sql(
        f"INSERT INTO {table.qualified} ({names}) OVERRIDING SYSTEM VALUE "
        f"SELECT {given} FROM {_unnest(len(table.columns))}"
    )


@lru_cache(maxsize=1024)
def _update_sql(table: TargetTable, tenant: bytes, shape: tuple[int, ...]) -> str:
    places = {position: number for number, position in enumerate(shape)}
    settings = ", ".join(
        f"{quoted(table.columns[position].name)} = {_cast(table, position, f's.c{number}')}"
        for position, number in places.items()
        if position not in table.key.positions
    )
    match = _match(table, tenant, places=[places[position] for position in table.key.positions])
    return _sql(f"UPDATE {table.qualified} AS t SET {settings} FROM {_unnest(len(shape))} WHERE {match}")


@lru_cache(maxsize=1024)
def _rewrite_sql(table: TargetTable, tenant: bytes) -> str:
    """The sort between the two halves reads every deleted row before the first is inserted."""
    count = len(table.columns)
    numbers = range(count)
    returned = ", ".join(
        f"CASE WHEN substr(s.c{count}, {number + 1}, 1) = '{_KEPT.decode()}' THEN t.{quoted(table.columns[number].name)} "
        f"ELSE {_cast(table, number, f's.c{number}')} END AS v{number}"
        for number in numbers
    )
    source = _unnest(count + 1 + len(table.key.positions))
    return _sql(
        f"WITH gone AS (DELETE FROM {table.qualified} AS t USING {source} "
        f"WHERE {_match(table, tenant, first=count + 1)} RETURNING s.c{count + 1} AS place, {returned}) "
        f"INSERT INTO {table.qualified} ({', '.join(quoted(column.name) for column in table.columns)}) "
        f"OVERRIDING SYSTEM VALUE SELECT {', '.join(f'v{number}' for number in numbers)} FROM gone ORDER BY place"
    )
