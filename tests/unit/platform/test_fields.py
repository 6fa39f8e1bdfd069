from __future__ import annotations

import msgspec
import pytest

from strata.platform.fields import FieldSelection, UnknownFieldsError


class Item(msgspec.Struct):
    sku: str
    name: str
    unit: str


SELECTION = FieldSelection(Item)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (None, None),
        ("sku", ("sku",)),
        ("name, sku", ("sku", "name")),
        ("sku,sku,", ("sku",)),
        ("unit,name,sku", ("sku", "name", "unit")),
    ],
)
def test_names_come_in_the_order_of_the_item(fields: str | None, names: tuple[str, ...] | None) -> None:
    assert SELECTION.parse(fields) == names


@pytest.mark.parametrize("fields", ["", ",", "sku,price", "__class__", "SKU"])
def test_what_is_not_a_field_is_refused_with_those_there_are(fields: str) -> None:
    with pytest.raises(UnknownFieldsError) as caught:
        SELECTION.parse(fields)
    assert caught.value.extra["fields"] == ("sku", "name", "unit")
