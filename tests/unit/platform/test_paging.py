from __future__ import annotations

import base64
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.platform.paging import BadCursorError, decode_cursor, encode_cursor

A_UUID = UUID("0197a000-0000-7000-8000-000000000001")


@pytest.mark.parametrize(
    ("values", "types"),
    [
        (("SKU-1",), (str,)),
        (("ø «»", "B-1", ""), (str, str, str)),
        ((A_UUID,), (UUID,)),
        ((datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), A_UUID), (datetime, UUID)),
        ((2**63 - 1,), (int,)),
    ],
)
def test_a_cursor_gives_back_what_went_in(values: tuple[object, ...], types: tuple[type, ...]) -> None:
    cursor = encode_cursor(values)
    assert cursor.isascii()
    assert not set(cursor) & set("+/=")
    assert decode_cursor(cursor, types) == values


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "%%%",
        "ÿ",
        encode_cursor(["a", "b"]),
        encode_cursor([1]),
        encode_cursor(["nul \0"]),
        base64.urlsafe_b64encode(b'{"a":"b"}').decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        base64.urlsafe_b64encode(b'["a"').decode(),
        "A" * 2000,
    ],
)
def test_anything_else_is_refused_by_name(cursor: str) -> None:
    with pytest.raises(BadCursorError):
        decode_cursor(cursor, (str,))


def test_a_number_that_no_column_holds_is_refused() -> None:
    with pytest.raises(BadCursorError):
        decode_cursor(encode_cursor([2**63]), (int,))


@given(st.text(max_size=300))
def test_no_text_makes_it_fail_otherwise(cursor: str) -> None:
    try:
        decode_cursor(cursor, (str, UUID))
    except BadCursorError:
        return
