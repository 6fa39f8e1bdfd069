from __future__ import annotations

from datetime import UTC, datetime

import pytest

from strata.inventory.imports.mapping import packaged, parse
from strata.inventory.imports.records import Record
from strata.inventory.imports.refusals import Refusal
from strata.inventory.imports.rows import Interpreter, Line

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
RETAIL = Interpreter(packaged("online-retail"), COLUMNS)


def read(
    *,
    invoice: str = "536365",
    code: str = "85123A",
    text: str = "A NAME",
    quantity: str = "6",
    at: str = "2010-12-01 08:26:00",
    price: str = "2.55",
    customer: str = "17850.0",
) -> Line | Refusal:
    return RETAIL.read(Record(2, [invoice, code, text, quantity, at, price, customer, "France"]))


def line(**fields: str) -> tuple[str, str | None, int, int, str]:
    """Kind, reason, the movement's quantity, the stock's change, the name."""
    found = read(**fields)
    assert isinstance(found, Line), found
    rule = RETAIL.rules[found.rule]
    return rule.kind, rule.reason, found.quantity, found.delta, found.name


def refused(**fields: str) -> Refusal:
    found = read(**fields)
    assert isinstance(found, Refusal), found
    return found


def test_what_a_line_of_online_retail_becomes() -> None:
    assert line() == ("pick", "sale", 6, -6, "A NAME")
    assert line(price="0.0") == ("pick", "sale", 6, -6, "A NAME")
    assert line(customer="", price="0.0") == ("pick", "sale", 6, -6, "A NAME")
    assert line(text="", price="1.0", customer="") == ("pick", "sale", 6, -6, "")
    assert line(invoice="C536379", quantity="-2") == ("receive", "customer-return", 2, 2, "A NAME")
    assert line(quantity="-30", text="damages") == ("adjust", "write-off", -30, -30, "")
    assert line(quantity="56", text=" ", price="0.0", customer="") == ("adjust", "stock-found", 56, 56, "")


@pytest.mark.parametrize(
    "code", ["POST", "DOT", "C2", "M", "m", "D", "S", "B", "BANK CHARGES", "bank charges", "AMAZONFEE", "CRUK"]
)
def test_fees_and_the_like_are_no_goods(code: str) -> None:
    refusal = refused(code=code)
    assert refusal.code == "not-goods"
    assert refusal.message == (
        "Line 2 was left out: the code stands for a fee, a discount, postage, samples or a voucher."
    )
    assert refusal.source["StockCode"] == code


def test_vouchers_are_no_goods_and_odd_codes_of_goods_are() -> None:
    assert refused(code="gift_0001_40").code == refused(code="GIFT_0001_50").code == "not-goods"
    assert line(code="DCGS0076")[0] == "pick"


def test_codes_that_differ_in_case_are_one_product() -> None:
    lower, upper = read(code=" 85123a"), read(code="85123A")
    assert isinstance(lower, Line)
    assert isinstance(upper, Line)
    assert (lower.sku, lower.spelling, upper.sku) == ("85123A", "85123a", "85123A")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"code": "  "}, "sku-missing"),
        ({"code": "x" * 65}, "sku-too-long"),
        ({"code": "a\tb"}, "control-character"),
        ({"code": "a\nb"}, "control-character"),
        ({"invoice": "9" * 129}, "reference-too-long"),
        ({"quantity": ""}, "quantity-invalid"),
        ({"quantity": "six"}, "quantity-invalid"),
        ({"quantity": "1.5"}, "quantity-invalid"),
        ({"quantity": "1,000"}, "quantity-invalid"),
        ({"quantity": "1_000"}, "quantity-invalid"),
        ({"quantity": "1e3"}, "quantity-invalid"),
        ({"quantity": "NaN"}, "quantity-invalid"),
        ({"quantity": "٣"}, "quantity-invalid"),
        ({"quantity": "9" * 5000}, "quantity-invalid"),
        ({"quantity": "1000000000000"}, "quantity-invalid"),
        ({"quantity": "0"}, "quantity-zero"),
        ({"quantity": "-0.0"}, "quantity-zero"),
        ({"at": ""}, "time-invalid"),
        ({"at": "01/12/2010 08:26"}, "time-invalid"),
        ({"at": "2010-02-30 08:26:00"}, "time-invalid"),
        ({"at": "0001-01-01 00:00:00"}, None),
        ({"invoice": "C1", "quantity": "5"}, "return-without-minus"),
    ],
)
def test_what_cannot_be_taken_says_why(fields: dict[str, str], code: str | None) -> None:
    found = read(**fields)
    assert (found.code if isinstance(found, Refusal) else None) == code
    if isinstance(found, Refusal):
        assert found.message.startswith("Line 2 ")
        assert found.message.endswith(".")
        assert max(map(len, found.source.values())) <= 500


@pytest.mark.parametrize(("quantity", "expected"), [("6.0", 6), ("+7", 7), (" 8 ", 8), ("999999999999", 999999999999)])
def test_whole_numbers_however_written(quantity: str, expected: int) -> None:
    assert line(quantity=quantity)[2] == expected


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        ("2010-12-01 08:26:00", datetime(2010, 12, 1, 8, 26, tzinfo=UTC)),
        ("2011-07-01 08:26:00", datetime(2011, 7, 1, 7, 26, tzinfo=UTC)),
        # Twice on that night: the first is meant.
        ("2010-10-31 01:30:00", datetime(2010, 10, 31, 0, 30, tzinfo=UTC)),
    ],
)
def test_times_are_london_s(local: str, utc: datetime) -> None:
    found = read(at=local)
    assert isinstance(found, Line)
    assert found.occurred_at == utc


def test_names_are_tidied_and_cut() -> None:
    assert line(text="  RETROSPOT  TEA\x01 SET ")[4] == "RETROSPOT TEA SET"
    assert len(line(text="x" * 300)[4]) == 200


def test_a_sign_that_the_kind_does_not_take_and_a_row_without_a_rule() -> None:
    stock_list = Interpreter(packaged("stock-list"), ("sku", "name", "quantity"))
    found = stock_list.read(Record(9, ["a", "A", "-1"]))
    assert isinstance(found, Refusal)
    assert (found.code, found.message) == (
        "quantity-sign",
        "Line 9 would receive -1, and a receive moves 1 or more.",
    )
    choosy = parse(
        "m",
        b"""
        title = "t"
        product.sku = { column = "sku" }
        movement = { quantity = "n", warehouse = "W", zone = "Z", bin = "B", occurred_at = { column = "at" } }
        post = [{ kind = "receive", when = [{ column = "n", above = 2, below = 5 }] }]
        """,
    )
    interpreter = Interpreter(choosy, ("sku", "n", "at"))
    without = interpreter.read(Record(3, ["a", "5", "2020-01-01"]))
    assert isinstance(without, Refusal)
    assert without.code == "no-rule"
    within = interpreter.read(Record(3, ["a", "3", "2020-01-01T00:00:00+02:00"]))
    assert isinstance(within, Line)
    assert within.occurred_at == datetime(2019, 12, 31, 22, tzinfo=UTC)
