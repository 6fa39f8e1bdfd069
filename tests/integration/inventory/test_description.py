"""The API's description: complete, and true to what is accepted."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from strata.app import StrataApp
from strata.inventory.alerts.controllers import ThresholdIn
from strata.inventory.approvals.controllers import Decision
from strata.inventory.locations.schemas import BinIn, BinPatch, PlacePatch, WarehouseIn, ZoneIn
from strata.inventory.movements.schemas import MovementIn, ReversalIn, check_lines
from strata.inventory.products.schemas import ProductIn, ProductPatch

_TAGS = {"Products", "Locations", "Stock", "Movements"}
_BODIES: dict[str, type[msgspec.Struct]] = {
    struct.__name__: struct
    for struct in (
        ProductIn,
        ProductPatch,
        WarehouseIn,
        ZoneIn,
        BinIn,
        PlacePatch,
        BinPatch,
        MovementIn,
        ReversalIn,
        ThresholdIn,
        Decision,
    )
}


@pytest.fixture(scope="module")
def operations(inventory_app: StrataApp) -> dict[str, dict[str, Any]]:
    document = msgspec.json.decode(msgspec.json.encode(inventory_app.openapi_schema.to_schema()))
    return {
        f"{method} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if _TAGS.intersection(operation.get("tags", ()))
    }


def test_every_operation_says_what_it_is(operations: dict[str, dict[str, Any]]) -> None:
    assert len(operations) == 33
    for name, operation in operations.items():
        assert operation.get("summary"), name


def test_every_body_has_an_example_that_would_be_accepted(operations: dict[str, dict[str, Any]]) -> None:
    checked = set()
    for name, operation in operations.items():
        body = operation.get("requestBody")
        if body is None:
            assert not name.startswith(("post", "patch", "put")), name
            continue
        schema = body["content"]["application/json"]["schema"]
        named = msgspec.json.encode(schema).decode()
        struct = next(struct for key, struct in _BODIES.items() if f'schemas/{key}"' in named)
        values = schema.get("examples")
        assert values, name
        for value in values:
            decoded = msgspec.convert(value, struct)
            if isinstance(decoded, MovementIn):
                check_lines(decoded)
        checked.add(struct)
    assert checked == set(_BODIES.values())
