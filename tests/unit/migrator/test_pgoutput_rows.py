"""Rows are taken apart by searching for what stands before a value: whatever the values are."""

from __future__ import annotations

import random

import pytest

from strata.migrator.pgoutput import NULL, SHORT, UNCHANGED, RawRow, Value, plain_columns, row_of, values
from strata.migrator.replication_errors import ProtocolError

# Lengths whose bytes are t or zero, where a search for «t, zero, zero» could be led astray.
_LENGTHS = (0, 1, 2, 0x74, 0xFF, 0x100, 0x7400, 0x7474, 0xFFFF, 0x10000, 0x74_0000)


def _text(length: int) -> bytes:
    return length.to_bytes(4, "big") + b"t" * length


@pytest.mark.parametrize("length", _LENGTHS)
@pytest.mark.parametrize("before", [b"t", b"n", b"u"])
def test_a_value_of_any_length_is_found(before: bytes, length: int) -> None:
    kinds: dict[bytes, Value] = {b"t": _text(3), b"n": NULL, b"u": UNCHANGED}
    first = kinds[before]
    row = [first, _text(length), first, _text(length), first]
    assert values(row_of(row)) == row


def test_rows_at_random() -> None:
    chance = random.Random(7)
    choices: list[Value] = [NULL, UNCHANGED, *map(_text, _LENGTHS[:6])]
    for _ in range(500):
        row = [chance.choice(choices) for _ in range(chance.randrange(1, 300))]
        assert values(row_of(row)) == row


def test_plain_rows_become_columns() -> None:
    chance = random.Random(11)
    for width in (1, 2, 9, 0x74, 300):
        rows = [[_text(chance.choice(_LENGTHS[:6])) for _ in range(width)] for _ in range(20)]
        columns = plain_columns([row_of(row) for row in rows])
        assert columns is not None
        assert [[SHORT + value for value in column] for column in columns] == [
            list(column) for column in zip(*rows, strict=True)
        ]


@pytest.mark.parametrize("row", [[NULL, _text(3)], [_text(3), UNCHANGED], [_text(3), _text(0x74_0000)]])
def test_rows_that_are_not_plain_are_left_to_the_loop(row: list[Value]) -> None:
    assert plain_columns([row_of([_text(1), _text(2)]), row_of(row)]) is None


def test_a_value_of_a_kind_that_was_not_asked_for_is_refused() -> None:
    row: RawRow = row_of([_text(1)]) + b"b\0\0\0\2ab"
    with pytest.raises(ProtocolError):
        values(row)
