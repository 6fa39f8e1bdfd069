from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.inventory.imports.batches import MOVEMENT_LINES, Batch, batches
from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.mapping import packaged
from strata.inventory.imports.records import Record
from strata.inventory.imports.refusals import Refusal
from strata.inventory.imports.rows import Interpreter
from strata.inventory.imports.survey import Survey, survey

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID")
MAPPING = packaged("online-retail")
INTERPRETER = Interpreter(MAPPING, COLUMNS)


def record(line: int, invoice: str, code: str = "A", quantity: int = 1, text: str = "N") -> Record:
    return Record(line, [invoice, code, text, str(quantity), "2010-12-01 08:26:00", "1", "1"])


def cut(outcomes: Iterable[Record | Refusal], size: int) -> list[Batch]:
    return list(batches(outcomes, INTERPRETER, size))


def shape(found: list[Batch]) -> list[list[int]]:
    return [[len(group.lines) for group in batch.groups] for batch in found]


def test_lines_that_follow_one_another_and_agree_are_one_movement() -> None:
    rows = [record(2, "1"), record(3, "1"), record(4, "2"), record(5, "1"), record(6, "C1", quantity=-1)]
    assert shape(cut(rows, 100)) == [[2, 1, 1, 1]]


def test_a_refused_row_does_not_part_the_movement_around_it() -> None:
    rows = [record(2, "1"), record(3, "1", "POST"), record(4, "1")]
    (batch,) = cut(rows, 100)
    assert (shape([batch]), batch.rows, [refusal.line for refusal in batch.refusals]) == ([[2]], 3, [3])


def test_a_batch_ends_where_a_movement_ends() -> None:
    rows = [record(n, str(n // 3)) for n in range(30)]
    assert shape(cut(rows, 4)) == [[3, 3]] * 5


def test_a_batch_is_cut_at_twice_its_size_whatever_is_in_it() -> None:
    assert [batch.rows for batch in cut([record(n, "1") for n in range(25)], 5)] == [10, 10, 5]
    assert [batch.rows for batch in cut([record(n, "1", "POST") for n in range(25)], 5)] == [10, 10, 5]


def test_a_movement_has_no_more_lines_than_the_api_takes() -> None:
    assert shape(cut([record(n, "1") for n in range(2 * MOVEMENT_LINES + 5)], 10_000)) == [[1000, 1000, 5]]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["A", "B", "POST"])), max_size=40), st.integers(1, 8))
def test_going_on_at_the_end_of_any_batch_gives_the_rest(rows: list[tuple[int, str]], size: int) -> None:
    records = [record(n + 2, str(invoice), code) for n, (invoice, code) in enumerate(rows)]
    whole = cut(records, size)
    done = 0
    for number, batch in enumerate(whole):
        done += batch.rows
        assert shape(cut(records[done:], size)) == shape(whole[number + 1 :])
    assert done == len(records)


def surveyed(tmp_path: Path, rows: Iterator[Record] | list[Record]) -> Survey:
    path = tmp_path / "f.csv"
    path.write_text("\n".join([",".join(COLUMNS), *(",".join(row.fields) for row in rows)]))
    return survey(SourceFile(path), MAPPING)


def test_names_spellings_and_the_beginning(tmp_path: Path) -> None:
    found = surveyed(
        tmp_path,
        [
            record(2, "1", "a1", text="amazon"),
            record(3, "2", "A1", text="MUG"),
            record(4, "3", "A1", text="MUG"),
            record(5, "4", "B1", text=""),
            record(6, "5", "C1", text="OLD"),
            record(7, "6", "C1", text="NEW"),
            record(8, "7", "C1", quantity=-1, text="damages"),
        ],
    )
    assert [found.name(sku) for sku in found.goods] == ["MUG", "B1", "NEW"]
    assert [(each.sku, each.spellings) for each in found.folded()] == [("A1", ("A1", "a1"))]
    assert found.begins_at == datetime(2010, 12, 1, 8, 26, tzinfo=UTC)
    assert found.rows == 7


def test_what_must_have_been_there_is_what_the_balance_lacks_at_its_lowest(tmp_path: Path) -> None:
    found = surveyed(
        tmp_path,
        [
            record(2, "1", "A", 5),
            record(3, "C2", "A", -5),
            record(4, "3", "A", 7),
            record(5, "C4", "B", -3),
            record(6, "5", "B", 2),
            record(7, "6", "C", -4),
        ],
    )
    assert found.needed() == [("A", 7), ("C", 4)]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    for rows in (5_000, 40_000):
        path = tmp_path / f"{rows}.csv"
        with path.open("w") as file:
            file.write(",".join(COLUMNS) + "\n")
            file.writelines(",".join(record(n, str(n // 5), f"S{n % 50}").fields) + "\n" for n in range(rows))
        tracemalloc.start()
        survey(SourceFile(path), MAPPING)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
