"""Many changes of a row become one: its last image.

A batch is a sequence of stages, nearly always a single one. Within a stage each row occurs once, whatever happened to
it, so that the order between rows no longer matters and one statement does for a table. A change of a key whose row
is not wholly in the log begins a new stage: only the target's own row holds the missing values.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import msgspec

from strata.migrator.pgoutput import (
    FIELD,
    NULL,
    TEXT,
    UNCHANGED,
    Delete,
    Insert,
    RawRow,
    Relation,
    Update,
    row_of,
    values,
)
from strata.migrator.replication_errors import ProtocolError, SchemaChangedError

# What Python spends on a remembered row besides its bytes: measured, rounded up.
ROW_OVERHEAD_BYTES = 400

Key = bytes
"""The key's values one after another, in the target's order: equal for equal rows, and taken apart by `key_values`."""


class Net(IntEnum):
    """What a stage does to a row, all in all."""

    INSERT = 1
    UPDATE = 2
    DELETE = 3
    REPLACE = 4
    """Insert; if a row with this key is there, it goes first (a key was changed to this one: an upsert)."""
    DISCARD = 5
    """Delete, if it is there (a key was changed from this one)."""


class Rename(msgspec.Struct, frozen=True):
    """A changed key whose new row lacks values that only the target has."""

    relation_id: int
    old_key: Key
    new: RawRow


class TableKey(msgspec.Struct, frozen=True):
    """Where a relation's rows have the columns of the target's primary key, in the primary key's order."""

    positions: tuple[int, ...]
    leading: bool


class Stage:
    """The net changes of each table, and the change of a key that ends it, if one does."""

    def __init__(self) -> None:
        self.tables: dict[int, dict[Key, tuple[Net, RawRow]]] = {}
        self.rename: Rename | None = None


class Batch:
    """Collects changes. `size_bytes` bounds what it holds in memory; `changes` counts what came in."""

    def __init__(self, keys: dict[int, TableKey]) -> None:
        self._keys = keys
        self.stages = [Stage()]
        self.changes = 0
        self.size_bytes = 0

    def __bool__(self) -> bool:
        return self.changes > 0

    def add(self, change: Insert | Update | Delete) -> None:
        match change:
            case Update():
                self._update(change)
            case Insert():
                self._put(change.relation_id, self._key(change.relation_id, change.new), change.new, moved=False)
            case Delete():
                self._remove(change.relation_id, self._key(change.relation_id, change.old), moved=False)

    def _update(self, change: Update) -> None:
        relation_id, new = change.relation_id, change.new
        if change.old is not None:
            old_key = self._key(relation_id, change.old)
            new = filled(new, change.old)
            if self._key(relation_id, new) != old_key:
                self._move(relation_id, old_key, new)
                return
        self.replace(relation_id, new)

    def replace(self, relation_id: int, new: RawRow) -> None:
        """An update that leaves the key alone, which is what most of a backlog consists of."""
        self.changes += 1
        key = key_of(self._keys[relation_id], new)
        rows = self._rows(relation_id)
        before = rows.get(key)
        if before is None:
            rows[key] = (Net.UPDATE, new)
            self.size_bytes += len(new) + ROW_OVERHEAD_BYTES
            return
        net, image = before
        if net in {Net.DELETE, Net.DISCARD}:
            raise ProtocolError("an update of a row that had just been deleted")
        merged = filled(new, image)
        rows[key] = (net, merged)
        self.size_bytes += len(merged) - len(image)

    def _move(self, relation_id: int, old_key: Key, new: RawRow) -> None:
        """A key was changed: the old row goes, the new one comes, unless part of it is on the target alone."""
        pending = self._rows(relation_id).get(old_key)
        if pending is not None:
            new = filled(new, pending[1])
        if has_unchanged(new):
            self.stages[-1].rename = Rename(relation_id, old_key, new)
            self.stages.append(Stage())
            self.changes += 1
            self.size_bytes += len(new) + ROW_OVERHEAD_BYTES
            return
        self._remove(relation_id, old_key, moved=True)
        self._put(relation_id, self._key(relation_id, new), new, moved=True)

    def _put(self, relation_id: int, key: Key, image: RawRow, *, moved: bool) -> None:
        self.changes += 1
        rows = self._rows(relation_id)
        before = rows.get(key)
        if before is None:
            net = Net.REPLACE if moved else Net.INSERT
        elif before[0] is Net.DELETE:
            net = Net.UPDATE
        elif before[0] is Net.DISCARD:
            net = Net.REPLACE
        else:
            raise ProtocolError("a row came in where one with its key already was")
        rows[key] = (net, image)
        self.size_bytes += len(image) + ROW_OVERHEAD_BYTES

    def _remove(self, relation_id: int, key: Key, *, moved: bool) -> None:
        self.changes += 1
        rows = self._rows(relation_id)
        before = rows.pop(key, None)
        if before is None:
            rows[key] = (Net.DISCARD if moved else Net.DELETE, b"")
            self.size_bytes += ROW_OVERHEAD_BYTES
            return
        net, image = before
        self.size_bytes -= len(image)
        if net is Net.INSERT:
            self.size_bytes -= ROW_OVERHEAD_BYTES
        elif net is Net.UPDATE:
            rows[key] = (Net.DELETE, b"")
        elif net is Net.REPLACE:
            rows[key] = (Net.DISCARD, b"")
        else:
            raise ProtocolError("a row was deleted twice")

    def _rows(self, relation_id: int) -> dict[Key, tuple[Net, RawRow]]:
        tables = self.stages[-1].tables
        rows = tables.get(relation_id)
        if rows is None:
            rows = tables[relation_id] = {}
        return rows

    def _key(self, relation_id: int, row: RawRow) -> Key:
        return key_of(self._keys[relation_id], row)


def key_of(table_key: TableKey, row: RawRow) -> Key:
    if table_key.leading:
        # The usual case costs no taking apart: each key column is a kind, a length and its bytes.
        end = 2
        for _ in table_key.positions:
            kind, size = FIELD.unpack_from(row, end)
            if kind != TEXT:
                raise ProtocolError("a key with a value that is NULL or was not sent")
            end += 5 + size
        return row[2:end]
    taken = values(row)
    parts = []
    for position in table_key.positions:
        value = taken[position]
        if value is UNCHANGED or value == NULL:
            raise ProtocolError("a key with a value that is NULL or was not sent")
        parts += [b"t", value]
    return b"".join(parts)


def key_values(key: Key) -> list[bytes]:
    """A key's values, each as an element of an array (see pgoutput.Value)."""
    position = 0
    taken = []
    while position < len(key):
        end = position + 5 + int.from_bytes(key[position + 1 : position + 5], "big")
        taken.append(key[position + 1 : end])
        position = end
    return taken


def has_unchanged(row: RawRow) -> bool:
    # The letter is nearly never in a row of numbers and identifiers; where it is, look closer.
    return b"u" in row and any(value is UNCHANGED for value in values(row))


def filled(row: RawRow, earlier: RawRow) -> RawRow:
    """`row`, with values that were not sent taken from an earlier image, as far as that has them.

    An old key has NULL for whatever is outside the key, which tells nothing: only what it really holds counts.
    """
    if b"u" not in row or not earlier:
        return row
    taken = values(row)
    if UNCHANGED not in taken:
        return row
    before = values(earlier)
    if len(before) != len(taken):
        raise ProtocolError("two images of a row with different numbers of columns")
    return row_of([old if new is UNCHANGED and old != NULL else new for new, old in zip(taken, before, strict=True)])


def key_columns(relation: Relation, primary_key: Sequence[str], table: str) -> TableKey:
    """Find the target's primary key in what the source sends of old rows."""
    positions = {column.name: number for number, column in enumerate(relation.columns)}
    sent = {column.name for column in relation.columns if column.in_key}
    if not primary_key or not sent.issuperset(primary_key):
        raise SchemaChangedError(
            table, f"the source's replica identity ({', '.join(sorted(sent)) or 'none'}) does not hold its primary key"
        )
    places = tuple(positions[name] for name in primary_key)
    return TableKey(places, leading=places == tuple(range(len(places))))


def net_rows(rows: dict[Key, tuple[Net, RawRow]], wanted: Net) -> list[tuple[Key, RawRow]]:
    return [(key, image) for key, (net, image) in rows.items() if net is wanted]
