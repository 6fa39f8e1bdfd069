"""What other programs rely on: the contract of the API, on every tier."""

from __future__ import annotations

import pytest

from strata.app import StrataApp
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.inventory import api_client
from tests.builders.platform import Tenantry


@pytest.mark.parametrize("tier", Tier)
async def test_a_product_comes_in_moves_and_is_seen(
    runtime: Runtime, inventory_app: StrataApp, tenant_on: Tenantry, tier: Tier
) -> None:
    context = await tenant_on(tier)
    async with api_client(inventory_app, runtime, context) as api:
        made = await api.post("/api/v1/products", json={"sku": "MUG", "name": "Mug"})
        assert made.status_code == 201, made.text
        assert made.headers["etag"] == '"v1"'
        assert made.headers["location"] == f"/api/v1/products/{made.json()['id']}"
        warehouse = await api.post("/api/v1/warehouses", json={"code": "HAM", "name": "Hamburg"})
        zone = await api.post(
            "/api/v1/zones", json={"warehouse_id": warehouse.json()["id"], "code": "PICK", "name": "Picking"}
        )
        for code in ("A-1", "A-2"):
            one = await api.post("/api/v1/bins", json={"zone_id": zone.json()["id"], "code": code})
            assert one.status_code == 201, one.text
        bins = (await api.get("/api/v1/bins")).json()
        assert [each["code"] for each in bins["items"]] == ["A-1", "A-2"]
        assert bins["next_cursor"] is None

        received = await api.post(
            "/api/v1/movements",
            json={"kind": "receive", "lines": [{"sku": "MUG", "bin": "A-1", "quantity": 10}]},
        )
        assert received.status_code == 201, received.text
        assert received.json()["lines"] == [
            {"sku": "MUG", "bin": "A-1", "batch": "", "quantity": 10, "on_hand": 10, "sequence": 1}
        ]
        moved = await api.post(
            "/api/v1/movements",
            json={"kind": "transfer", "lines": [{"sku": "MUG", "bin": "A-1", "to_bin": "A-2", "quantity": 4}]},
        )
        assert [line["on_hand"] for line in moved.json()["lines"]] == [6, 4]

        stock = (await api.get("/api/v1/stock", params={"sku": "MUG"})).json()
        assert [(item["bin"], item["on_hand"]) for item in stock["items"]] == [("A-1", 6), ("A-2", 4)]
        ledger = (await api.get("/api/v1/ledger", params={"sku": "MUG"})).json()
        assert [(line["bin"], line["quantity"], line["on_hand"]) for line in ledger["items"]] == [
            ("A-2", 4, 4),
            ("A-1", -4, 6),
            ("A-1", 10, 10),
        ]
        products = (await api.get("/api/v1/products", params={"limit": 1})).json()
        assert [item["sku"] for item in products["items"]] == ["MUG"]
        one = await api.get(f"/api/v1/movements/{moved.json()['id']}")
        assert one.json() == moved.json()

        short = await api.post(
            "/api/v1/movements", json={"kind": "pick", "lines": [{"sku": "MUG", "bin": "A-1", "quantity": 7}]}
        )
        assert (short.status_code, short.json()["code"]) == (409, "stock-shortage")
        assert short.json()["shortages"] == [{"sku": "MUG", "bin": "A-1", "wanted": 7, "on_hand": 6, "batch": ""}]

        back = await api.post(f"/api/v1/movements/{moved.json()['id']}/reversal")
        assert back.status_code == 201, back.text
        assert [line["on_hand"] for line in back.json()["lines"]] == [10, 0]
        again = await api.post(f"/api/v1/movements/{moved.json()['id']}/reversal", json={})
        assert (again.status_code, again.json()["code"]) == (409, "already-reversed")
