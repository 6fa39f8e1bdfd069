"""Custom values that a mapping takes from columns, from a constant or, for opening stock, from itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.inventory.custom.values import Value, typed
from strata.inventory.imports.batches import batches
from strata.inventory.imports.custom_columns import check_custom, opening_values, with_columns
from strata.inventory.imports.errors import MappingRefusedError
from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.mapping import Mapping, packaged, parse
from strata.inventory.imports.records import Record
from strata.inventory.imports.refusals import Refusal
from strata.inventory.imports.rows import Interpreter, Line
from strata.inventory.imports.survey import survey
from strata.inventory.settings import CustomField, CustomFields, FieldType

COLUMNS = ("code", "n", "Colour", "Size", "By")
FIELDS = CustomFields(
    product=[
        CustomField(key="colour", label="Colour", type=FieldType.SELECT, options=["red", "blue"], required=True),
        CustomField(key="size", label="Size", type=FieldType.NUMBER),
        CustomField(key="origin", label="Origin"),
    ],
    movement=[CustomField(key="carrier", label="Carrier", required=True)],
)
WHOLE = """
[product.custom]
colour = "Colour"
size = { column = "Size" }
origin = { constant = "PT" }

[movement.custom]
carrier = { column = "By", opening = "stocktake" }
"""


def mapping(custom: str = WHOLE) -> Mapping:
    least = """
    title = "t"
    post = [{ kind = "receive" }]
    [product]
    sku = { column = "code" }
    [movement]
    quantity = "n"
    warehouse = "W"
    zone = "Z"
    bin = "B"
    """
    return parse("m", (least + custom).encode())


def row(line: int, code: str, colour: str = "", size: str = "", by: str = "DHL") -> Record:
    return Record(line, [code, "1", colour, size, by])


def read(*fields: str) -> Line | Refusal:
    return Interpreter(mapping(), COLUMNS, FIELDS).read(row(2, "a", *fields))


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        (("red", "12.5"), {"origin": "PT", "colour": "red", "size": 12.5}),
        ((" blue ", "12"), {"origin": "PT", "colour": "blue", "size": 12}),
        (("", ""), {"origin": "PT"}),
    ],
)
def test_a_row_gives_values_of_their_types_and_an_empty_field_gives_none(
    fields: tuple[str, ...], values: dict[str, Value]
) -> None:
    line = read(*fields)
    assert isinstance(line, Line)
    assert (line.product_custom, line.movement_custom) == (values, {"carrier": "DHL"})


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        (("green",), "custom-unfit", "Line 2 was refused: «Colour»: choose from red, blue."),
        (("red", "1_000"), "custom-unfit", "Line 2 was refused: «Size»: give a number."),
        (("red", "1", " "), "custom-missing", "Line 2 was refused: «Carrier» is required."),
        (
            ("red", "1", "x" * 1001),
            "custom-unfit",
            "Line 2 was refused: «Carrier»: give a text of at most 1000 characters.",
        ),
    ],
)
def test_a_value_that_does_not_fit_refuses_its_row(fields: tuple[str, ...], code: str, message: str) -> None:
    refused = read(*fields)
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.message) == (code, message)


def test_rows_that_differ_in_a_movements_values_are_different_movements() -> None:
    rows = [row(2, "a", by="DHL"), row(3, "b", by="DHL"), row(4, "c", by="UPS"), row(5, "d", by="DHL")]
    [batch] = batches(rows, Interpreter(mapping(), COLUMNS, FIELDS), 100)
    assert [[line.sku for line in group.lines] for group in batch.groups] == [["a", "b"], ["c"], ["d"]]


def test_a_product_has_of_each_field_the_first_value_the_file_gives(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("code,n,Colour,Size,By\na,1,,,DHL\na,1,green,7,DHL\na,1,red,9,DHL\na,1,blue,5,DHL\nb,1,,,DHL\n")
    found = survey(SourceFile(path), mapping(), FIELDS)
    assert found.custom("a") == {"origin": "PT", "colour": "red", "size": 9}
    assert found.custom("b") == {"origin": "PT"}
    assert found.custom("nowhere") == {}


@pytest.mark.parametrize(
    ("custom", "opening_stock", "says"),
    [
        ('[product.custom]\nweight = "Size"', False, "product.custom.weight: There is no custom field «weight»"),
        ('[movement.custom]\ncolour = "Colour"', False, "movement.custom.colour: There is no custom field «colour»"),
        ("[product.custom]\ncolour = { constant = 'green' }", False, "«Colour»: choose from red, blue"),
        ("[product.custom]\nsize = { constant = 'big' }", False, "product.custom.size: «Size»: give a number"),
        (
            "[movement.custom]\ncarrier = { column = 'By', opening = 5 }",
            False,
            "opening stock, movement.custom.carrier",
        ),
        ('[movement.custom]\ncarrier = "By"', True, "opening stock, movement.custom.carrier: «Carrier» is required"),
        ("", True, "opening stock, movement.custom.carrier: «Carrier» is required"),
    ],
)
def test_what_no_row_could_mend_is_told_at_the_start(custom: str, opening_stock: bool, says: str) -> None:
    with pytest.raises(MappingRefusedError) as refused:
        check_custom(mapping(custom), FIELDS, opening_stock=opening_stock)
    assert says in refused.value.detail


@pytest.mark.parametrize("opening_stock", [True, False])
def test_what_can_be_had_is_accepted(opening_stock: bool) -> None:
    check_custom(mapping(), FIELDS, opening_stock=opening_stock)
    assert opening_values(mapping(), FIELDS) == {"carrier": "stocktake"}
    check_custom(packaged("stock-list"), FIELDS, opening_stock=False)


def test_columns_that_an_upload_names() -> None:
    plain = packaged("stock-list")
    assert with_columns(plain, [("mapping", "stock-list")]) is plain
    named = with_columns(plain, [("product.custom.colour", "Colour"), ("movement.custom.carrier", "By")])
    assert (named.name, named.columns()) == ("stock-list", ("sku", "quantity", "name", "Colour", "By"))
    assert named.digest != plain.digest


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("+7", 7),
        ("\N{MINUS SIGN}0.5", -0.5),
        (".5", 0.5),
        ("2e3", 2000),
        ("1_0", "1_0"),
        ("nan", "nan"),
        ("\N{ARABIC-INDIC DIGIT THREE}", "\N{ARABIC-INDIC DIGIT THREE}"),
        ("1e999", float("inf")),
        ("", ""),
    ],
)
def test_numbers_as_machines_write_them(text: str, value: Value) -> None:
    found = typed(FIELDS.product, {"size": text, "origin": text})
    assert found == {"size": value, "origin": text}
    assert type(found["size"]) is type(value)
