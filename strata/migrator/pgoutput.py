"""The messages of PostgreSQL's output plugin `pgoutput`, versions 1 and 2 of its protocol.

Source: PostgreSQL documentation, "Logical Replication Message Formats". Values are asked for as text: the binary form
of arrays, ranges and composites holds OIDs, which differ from database to database, and it may change between
major versions; native replication keeps it off for the same reasons.

A row stays one piece of bytes until it is known to be needed: of a row changed ten times in a batch, nine are
never taken apart.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Final

import msgspec

from strata.migrator.replication_errors import ProtocolError
from strata.platform.database.lsn import Lsn

_UNCHANGED = 0x75  # u
_NULL = 0x6E  # n
TEXT: Final = 0x74  # t
NEW_TUPLE: Final = 0x4E  # N; otherwise K, the old key, or O, the old row

SHORT: Final = b"\0\0"
"""The upper half of the length of a value shorter than 64 KiB."""
_SHORT_TEXT = b"t" + SHORT
_SHORT_ROW_BYTES = 0xFFFF

_INT16 = struct.Struct("!h")
FIELD: Final = struct.Struct("!BI")
"""Kind and, of text, length of a value."""
_INT32 = struct.Struct("!i")
_UINT32 = struct.Struct("!I")
_BEGIN = struct.Struct("!QQI")
_COMMIT = struct.Struct("!BQQQ")
_STREAM_COMMIT = struct.Struct("!IBQQQ")

RawRow = bytes
"""A TupleData: number of columns, then for each its kind and, of text, length and bytes."""


class Unchanged(Enum):
    """Stands where a value kept outside its row did not change and so is not in the log; never to be read as NULL."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED
NULL: Final = b"\xff\xff\xff\xff"

Value = bytes | Unchanged
"""A value as an element of a binary text[] is: length (-1: NULL) and bytes."""


class Column(msgspec.Struct, frozen=True, gc=False):
    name: str
    in_key: bool
    """Belongs to the replica identity."""
    type_oid: int
    type_modifier: int


class Relation(msgspec.Struct, frozen=True):
    id: int
    schema: str
    table: str
    columns: tuple[Column, ...]


class Type(msgspec.Struct, frozen=True, gc=False):
    """The name of a type that is not built in; precedes the first relation that has it."""

    id: int
    schema: str
    name: str


class Begin(msgspec.Struct, frozen=True, gc=False):
    commit_lsn: Lsn
    """Where the commit record begins. A snapshot at a consistent point holds the transaction if this lies before it."""
    commit_time_us: int
    """Microseconds since 2000-01-01 UTC."""
    xid: int


class Origin(msgspec.Struct, frozen=True, gc=False):
    """The transaction came to the source by replication."""

    lsn: Lsn
    name: str


class Insert(msgspec.Struct, frozen=True, gc=False):
    relation_id: int
    new: RawRow


class Update(msgspec.Struct, frozen=True, gc=False):
    relation_id: int
    old: RawRow | None
    """Sent when the replica identity changed (its columns alone), or always (the whole row) with REPLICA IDENTITY FULL."""
    new: RawRow


class Delete(msgspec.Struct, frozen=True, gc=False):
    relation_id: int
    old: RawRow


class Truncate(msgspec.Struct, frozen=True):
    relation_ids: tuple[int, ...]


class LogicalMessage(msgspec.Struct, frozen=True, gc=False):
    """From pg_logical_emit_message."""

    transactional: bool
    lsn: Lsn
    prefix: str
    content: bytes


class Commit(msgspec.Struct, frozen=True, gc=False):
    commit_lsn: Lsn
    end_lsn: Lsn
    commit_time_us: int


class StreamStart(msgspec.Struct, frozen=True, gc=False):
    """What follows, up to the stop, belongs to a transaction that has not ended."""

    xid: int
    first: bool


class StreamStop(msgspec.Struct, frozen=True, gc=False):
    pass


class StreamCommit(msgspec.Struct, frozen=True, gc=False):
    xid: int
    commit_lsn: Lsn
    end_lsn: Lsn
    commit_time_us: int


class StreamAbort(msgspec.Struct, frozen=True, gc=False):
    """Of a subtransaction where the two numbers differ."""

    xid: int
    subtransaction: int


Message = (
    Relation
    | Type
    | Begin
    | Origin
    | Insert
    | Update
    | Delete
    | Truncate
    | LogicalMessage
    | Commit
    | StreamStart
    | StreamStop
    | StreamCommit
    | StreamAbort
)


def decode(data: bytes) -> Message:
    """Read one message. Of those inside a stream block, without its transaction number (see `split_streamed`)."""
    decoder = _DECODERS.get(data[0])
    if decoder is None:
        raise ProtocolError(f"unknown message {data[:1]!r}")
    return decoder(data)


def split_streamed(data: bytes) -> tuple[int, bytes]:
    """The (sub)transaction that a message inside a stream block belongs to, and the message as `decode` knows it."""
    return _UINT32.unpack_from(data, 1)[0], data[:1] + data[5:]


def row_end(data: bytes, start: int) -> int:
    """Where the TupleData that begins at `start` ends."""
    (count,) = _INT16.unpack_from(data, start)
    position = start + 2
    for _ in range(count):
        if data[position] == TEXT:
            position += 5 + int.from_bytes(data[position + 1 : position + 5], "big")
        else:
            position += 1
    return position


def plain_columns(rows: Sequence[RawRow]) -> list[list[bytes]] | None:
    """Some rows of one table as columns, if all are short and lack no value; of each Value without the leading SHORT.

    No text of PostgreSQL's holds a zero byte, and in a row of less than 64 KiB two of them in succession stand in the
    length of a value and nowhere else: so one search by the interpreter's own code finds all values of all rows, where
    a loop costs several times that.
    """
    width = (rows[0][0] << 8 | rows[0][1]) + 1
    pieces = _SHORT_TEXT.join(rows).split(_SHORT_TEXT)
    if len(pieces) != width * len(rows) or max(map(len, rows)) > _SHORT_ROW_BYTES:
        return None
    return [pieces[number::width] for number in range(1, width)]


def values(row: RawRow) -> list[Value]:
    """A row, taken apart."""
    if len(row) > _SHORT_ROW_BYTES:
        return _long_values(row)
    first, *pieces = row.split(_SHORT_TEXT)
    taken = [_absent(kind) for kind in first[2:]]
    for piece in pieces:
        end = 2 + (piece[0] << 8 | piece[1])
        if end == len(piece):
            taken.append(SHORT + piece)
            continue
        taken.append(SHORT + piece[:end])
        taken.extend(_absent(kind) for kind in piece[end:])
    if len(taken) != (row[0] << 8 | row[1]):
        raise ProtocolError(f"a row with {len(taken)} values where there should be {row[0] << 8 | row[1]}")
    return taken


def _absent(kind: int) -> Value:
    if kind == _NULL:
        return NULL
    if kind == _UNCHANGED:
        return UNCHANGED
    raise ProtocolError(f"a value of kind {bytes((kind,))!r}, where only text was asked for")


def _long_values(row: RawRow) -> list[Value]:
    (count,) = _INT16.unpack_from(row)
    position = 2
    taken: list[Value] = []
    for _ in range(count):
        kind = row[position]
        position += 1
        if kind == TEXT:
            end = position + 4 + int.from_bytes(row[position : position + 4], "big")
            taken.append(row[position:end])
            position = end
        else:
            taken.append(_absent(kind))
    return taken


def row_of(taken: Sequence[Value]) -> RawRow:
    """What `values` took apart, put together again."""
    parts = [_INT16.pack(len(taken))]
    for value in taken:
        if value is UNCHANGED:
            parts.append(b"u")
        elif value == NULL:
            parts.append(b"n")
        else:
            parts += (b"t", value)
    return b"".join(parts)


def _string(data: bytes, start: int) -> tuple[str, int]:
    end = data.index(0, start)
    return data[start:end].decode(), end + 1


def _relation(data: bytes) -> Relation:
    (relation_id,) = _UINT32.unpack_from(data, 1)
    schema, position = _string(data, 5)
    table, position = _string(data, position)
    position += 1  # which replica identity: the columns' flags say what it holds
    (count,) = _INT16.unpack_from(data, position)
    position += 2
    columns = []
    for _ in range(count):
        in_key = bool(data[position] & 1)
        name, position = _string(data, position + 1)
        (type_oid,) = _UINT32.unpack_from(data, position)
        (type_modifier,) = _INT32.unpack_from(data, position + 4)
        position += 8
        columns.append(Column(name, in_key, type_oid, type_modifier))
    # An empty name stands for pg_catalog.
    return Relation(relation_id, schema or "pg_catalog", table, tuple(columns))


def _type(data: bytes) -> Type:
    (type_id,) = _UINT32.unpack_from(data, 1)
    schema, position = _string(data, 5)
    return Type(type_id, schema or "pg_catalog", _string(data, position)[0])


def _begin(data: bytes) -> Begin:
    commit_lsn, commit_time_us, xid = _BEGIN.unpack_from(data, 1)
    return Begin(Lsn(commit_lsn), commit_time_us, xid)


def _origin(data: bytes) -> Origin:
    return Origin(Lsn(int.from_bytes(data[1:9], "big")), _string(data, 9)[0])


def _insert(data: bytes) -> Insert:
    return Insert(int.from_bytes(data[1:5], "big"), data[6:])


def _update(data: bytes) -> Update:
    relation_id = int.from_bytes(data[1:5], "big")
    if data[5] == NEW_TUPLE:
        return Update(relation_id, None, data[6:])
    end = row_end(data, 6)
    return Update(relation_id, data[6:end], data[end + 1 :])


def _delete(data: bytes) -> Delete:
    return Delete(int.from_bytes(data[1:5], "big"), data[6:])


def _truncate(data: bytes) -> Truncate:
    (count,) = _INT32.unpack_from(data, 1)
    return Truncate(struct.unpack_from(f"!{count}I", data, 6))


def _message(data: bytes) -> LogicalMessage:
    prefix, position = _string(data, 10)
    return LogicalMessage(bool(data[1] & 1), Lsn(int.from_bytes(data[2:10], "big")), prefix, data[position + 4 :])


def commit_end(data: bytes) -> Lsn:
    """All that is needed of most commits."""
    return Lsn(_COMMIT.unpack_from(data, 1)[2])


def _commit(data: bytes) -> Commit:
    _, commit_lsn, end_lsn, commit_time_us = _COMMIT.unpack_from(data, 1)
    return Commit(Lsn(commit_lsn), Lsn(end_lsn), commit_time_us)


def _stream_start(data: bytes) -> StreamStart:
    return StreamStart(int.from_bytes(data[1:5], "big"), first=bool(data[5]))


def _stream_stop(_data: bytes) -> StreamStop:
    return StreamStop()


def _stream_commit(data: bytes) -> StreamCommit:
    xid, _, commit_lsn, end_lsn, commit_time_us = _STREAM_COMMIT.unpack_from(data, 1)
    return StreamCommit(xid, Lsn(commit_lsn), Lsn(end_lsn), commit_time_us)


def _stream_abort(data: bytes) -> StreamAbort:
    return StreamAbort(int.from_bytes(data[1:5], "big"), int.from_bytes(data[5:9], "big"))


_DECODERS: Mapping[int, Callable[[bytes], Message]] = {
    ord("R"): _relation,
    ord("Y"): _type,
    ord("B"): _begin,
    ord("O"): _origin,
    ord("I"): _insert,
    ord("U"): _update,
    ord("D"): _delete,
    ord("T"): _truncate,
    ord("M"): _message,
    ord("C"): _commit,
    ord("S"): _stream_start,
    ord("E"): _stream_stop,
    ord("c"): _stream_commit,
    ord("A"): _stream_abort,
}
