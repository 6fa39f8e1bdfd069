from __future__ import annotations

from datetime import date

import msgspec
import pytest

from strata.inventory.movements.errors import LinesRefusedError
from strata.inventory.movements.models import MovementKind
from strata.inventory.movements.schemas import MAX_QUANTITY, LineIn, MovementIn, check_lines

POSITIVE = (MovementKind.RECEIVE, MovementKind.PICK, MovementKind.TRANSFER)


def movement(kind: MovementKind, quantity: int, **line: object) -> MovementIn:
    if kind is MovementKind.TRANSFER:
        line.setdefault("to_bin", "B-2")
    return MovementIn(kind, [LineIn("S", "B-1", quantity, **line)])  # type: ignore[arg-type]


def refused(movement: MovementIn) -> list[str]:
    with pytest.raises(LinesRefusedError) as caught:
        check_lines(movement)
    errors = caught.value.extra["errors"]
    assert isinstance(errors, list)
    return [error["path"] for error in errors]


@pytest.mark.parametrize("kind", POSITIVE)
@pytest.mark.parametrize("quantity", [1, MAX_QUANTITY])
def test_a_positive_quantity_moves(kind: MovementKind, quantity: int) -> None:
    check_lines(movement(kind, quantity))


@pytest.mark.parametrize("kind", POSITIVE)
@pytest.mark.parametrize("quantity", [0, -1, -MAX_QUANTITY])
def test_nothing_or_less_does_not(kind: MovementKind, quantity: int) -> None:
    assert refused(movement(kind, quantity)) == ["/lines/0/quantity"]


@pytest.mark.parametrize("quantity", [-5, 5])
def test_an_adjustment_goes_both_ways(quantity: int) -> None:
    check_lines(movement(MovementKind.ADJUST, quantity))


def test_an_adjustment_by_nothing_is_refused() -> None:
    assert refused(movement(MovementKind.ADJUST, 0)) == ["/lines/0/quantity"]


def test_a_count_may_find_nothing_but_not_less() -> None:
    check_lines(movement(MovementKind.COUNT, 0))
    assert refused(movement(MovementKind.COUNT, -1)) == ["/lines/0/quantity"]


def test_a_transfer_goes_to_another_bin() -> None:
    assert refused(movement(MovementKind.TRANSFER, 1, to_bin=None)) == ["/lines/0/to_bin"]
    assert refused(movement(MovementKind.TRANSFER, 1, to_bin="B-1")) == ["/lines/0/to_bin"]
    assert refused(movement(MovementKind.PICK, 1, to_bin="B-2")) == ["/lines/0/to_bin"]


def test_an_expiry_date_comes_with_a_receipt() -> None:
    day = date(2027, 1, 1)
    check_lines(movement(MovementKind.RECEIVE, 1, expires_on=day))
    assert refused(movement(MovementKind.PICK, 1, expires_on=day)) == ["/lines/0/expires_on"]


def test_every_bad_line_is_named() -> None:
    lines = [LineIn("S", "B", 1), LineIn("S", "B", 0), LineIn("S", "B", -1, to_bin="C")]
    assert refused(MovementIn(MovementKind.PICK, lines)) == [
        "/lines/1/quantity",
        "/lines/2/quantity",
        "/lines/2/to_bin",
    ]


def test_a_reversal_is_not_posted_as_a_movement() -> None:
    assert refused(movement(MovementKind.REVERSAL, 1)) == ["/kind"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"sku":"S","bin":"B","quantity":1.5}',
        b'{"sku":"S","bin":"B","quantity":"1"}',
        b'{"sku":"S","bin":"B","quantity":9007199254740992}',
        b'{"sku":"S","bin":"B","quantity":-9007199254740992}',
        b'{"sku":"S","bin":"B","quantity":true}',
        b'{"sku":"","bin":"B","quantity":1}',
        b'{"sku":" S","bin":"B","quantity":1}',
        b'{"sku":"S\\n","bin":"B","quantity":1}',
        b'{"sku":"S\\u0000","bin":"B","quantity":1}',
        b'{"sku":"S","bin":"B","quantity":1,"batch":"\\u0000"}',
        b'{"sku":"S","bin":"B","quantity":1,"price":2}',
        b'{"sku":"S","bin":"B"}',
    ],
)
def test_the_edge_takes_no_approximation(line: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"kind":"receive","lines":[' + line + b"]}", type=MovementIn)


def test_a_movement_has_lines() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"kind":"receive","lines":[]}', type=MovementIn)
