from __future__ import annotations

import io

import pytest

from strata.inventory.imports.errors import ColumnsMissingError, FileUnreadableError
from strata.inventory.imports.mapping import packaged
from strata.inventory.imports.records import LINE_LIMIT, CsvRecords, Record
from strata.inventory.imports.refusals import Refusal

HEADER = "sku,name,quantity\n"
STOCK_LIST = packaged("stock-list")


def rows(text: str, *, header: str = HEADER) -> list[tuple[int, list[str] | str]]:
    """Each row as (line, fields) or (line, refusal's code)."""
    records = CsvRecords(io.StringIO(header + text, newline=""), STOCK_LIST, "f.csv")
    return [(row.line, row.fields if isinstance(row, Record) else row.code) for row in records]


def test_plain_rows_with_every_line_ending() -> None:
    assert rows("a,A,1\r\nb,B,2\nc,C,3") == [(2, ["a", "A", "1"]), (3, ["b", "B", "2"]), (4, ["c", "C", "3"])]


def test_quotes_delimiters_and_line_breaks_within_a_field() -> None:
    assert rows('a,"A ""x"", y",1\nb,"two\nlines",2\nc,C,3\n') == [
        (2, ["a", 'A "x", y', "1"]),
        (3, ["b", "two\nlines", "2"]),
        (5, ["c", "C", "3"]),
    ]


def test_blank_lines_are_no_rows_but_are_counted_as_lines() -> None:
    assert rows("\n\na,A,1\n\n") == [(4, ["a", "A", "1"])]


@pytest.mark.parametrize("line", ["a,A", "a,A,1,extra", "a"])
def test_a_ragged_row_is_refused_and_the_next_is_not(line: str) -> None:
    assert rows(f"{line}\nb,B,2\n") == [(2, "wrong-field-count"), (3, ["b", "B", "2"])]


def test_a_quotation_mark_never_closed_costs_one_line() -> None:
    good = "".join(f"s{n},N,{n}\n" for n in range(200))
    found = rows('a,"A,1\n' + good)
    assert found[0] == (2, "unreadable")
    assert [fields[0] for _, fields in found[1:]] == [f"s{n}" for n in range(200)]
    assert found[-1][0] == 202


def test_a_quotation_mark_closed_by_a_later_one_costs_the_two_lines_that_have_them() -> None:
    assert rows('a,"A,1\nb,B,2\nc,C "x"",3\nd,D,4\n') == [
        (2, "unreadable"),
        (3, ["b", "B", "2"]),
        (4, ["c", 'C "x""', "3"]),
        (5, ["d", "D", "4"]),
    ]
    assert rows('a,"A,1\nb,B",2\nc,C,3\n') == [(2, ["a", "A,1\nb,B", "2"]), (4, ["c", "C", "3"])]


def test_a_mark_open_at_the_end_of_the_file() -> None:
    assert rows('a,A,1\nb,"B,2\n') == [(2, ["a", "A", "1"]), (3, "unreadable")]
    assert rows('a,A,1\nb,"B,2') == [(2, ["a", "A", "1"]), (3, "unreadable")]


def test_text_after_a_closing_mark_is_not_guessed_at() -> None:
    assert rows('a,"A"x,1\nb,B,2\n') == [(2, "unreadable"), (3, ["b", "B", "2"])]


@pytest.mark.parametrize("length", [LINE_LIMIT - 1, LINE_LIMIT, LINE_LIMIT * 3 + 17])
def test_a_line_without_end_is_passed_over_in_bounded_memory(length: int) -> None:
    assert rows("x" * length + "\nb,B,2\n")[1] == (3, ["b", "B", "2"])
    assert rows("a," + "x" * length + ",1\nb,B,2\n")[0] == (2, "row-too-long")
    assert rows('a,"' + "x" * length + "\nb,B,2\n") == [(2, "row-too-long"), (3, ["b", "B", "2"])]


def test_nul_and_undecodable_bytes_refuse_their_row_alone() -> None:
    text = io.TextIOWrapper(
        io.BytesIO(HEADER.encode() + b"a,\xa3 5,1\nb,B\0,2\nc,\xc2\xa3 5,3\n"), "utf-8", "surrogateescape", newline=""
    )
    found = list(CsvRecords(text, STOCK_LIST, "f.csv"))
    refused = [row for row in found if isinstance(row, Refusal)]
    assert [(row.line, row.code) for row in refused] == [(2, "bad-encoding"), (3, "control-character")]
    assert refused[0].source == {"text": "a,\N{REPLACEMENT CHARACTER} 5,1"}
    assert refused[0].message == "Line 2 has bytes that are not utf-8; save the file in that encoding."
    assert "\0" not in refused[1].source["text"]
    assert found[2] == Record(4, ["c", "£ 5", "3"])


def test_columns_may_come_in_any_order_among_others() -> None:
    found = rows("1,x,a,A\n", header="quantity,other, sku ,name\n")
    assert found == [(2, ["1", "x", "a", "A"])]


@pytest.mark.parametrize(
    ("header", "error", "says"),
    [
        ("", FileUnreadableError, "is empty"),
        ("\n\n", FileUnreadableError, "is empty"),
        ("sku;name;quantity\n", ColumnsMissingError, "lacks the columns sku, quantity, name; it has sku;name;quantity"),
        ("SKU,name,quantity\n", ColumnsMissingError, "lacks the columns sku; it has SKU, name, quantity"),
        ("sku,name,quantity,sku\n", FileUnreadableError, "column «sku» more than once"),
        ('sku,"name,quantity\n', FileUnreadableError, "should name the columns"),
    ],
)
def test_a_first_line_that_does_not_do(header: str, error: type[FileUnreadableError], says: str) -> None:
    with pytest.raises(error) as refused:
        rows("", header=header)
    assert says in refused.value.detail
