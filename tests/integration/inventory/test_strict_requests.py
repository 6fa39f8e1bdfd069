"""Requests that are malformed, misspelt or out of bounds are the client's to mend, and the answer says how."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from strata.app import StrataApp
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.inventory import api_client, stocked
from tests.builders.platform import Tenantry

PRODUCTS = "/api/v1/products"
MOVEMENTS = "/api/v1/movements"


@pytest.fixture
async def api(runtime: Runtime, inventory_app: StrataApp, tenant_on: Tenantry) -> AsyncIterator[httpx.AsyncClient]:
    context = await tenant_on(Tier.SHARED)
    await stocked(runtime, context, skus=1, bins=1)
    async with api_client(inventory_app, runtime, context) as client:
        yield client


@pytest.mark.parametrize(
    "body",
    [
        b'{"sku":"a\xff","name":"b"}',
        b"[" * 100_000,
        b'{"sku":"a","name":"b","attributes":' + b'{"a":' * 3000 + b"1" + b"}" * 3001,
        b'{"sku":',
    ],
)
async def test_a_malformed_body_is_the_clients(api: httpx.AsyncClient, body: bytes) -> None:
    answer = await api.post(PRODUCTS, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed-body")


async def test_a_form_is_not_json(api: httpx.AsyncClient) -> None:
    assert (await api.post(PRODUCTS, data={"sku": "a", "name": "b"})).status_code == 415


async def test_unknown_query_parameters_are_named(api: httpx.AsyncClient) -> None:
    answer = await api.get(PRODUCTS, params={"skuu": "S-0"})
    assert (answer.status_code, answer.json()["unknown"]) == (400, ["skuu"])
    assert "sku" in answer.json()["parameters"]
    assert (await api.get(PRODUCTS, params={"limit": "1"})).status_code == 200


async def test_a_product_by_a_sku_with_a_slash(api: httpx.AsyncClient) -> None:
    await api.post(PRODUCTS, json={"sku": "A/1", "name": "Slashed"})
    found = (await api.get(PRODUCTS, params={"sku": "A/1"})).json()["items"]
    assert [item["sku"] for item in found] == ["A/1"]


@pytest.mark.parametrize("quantity", ["1", 10**12 + 1])
async def test_quantities_out_of_bounds(api: httpx.AsyncClient, quantity: object) -> None:
    body = {"kind": "receive", "lines": [{"sku": "S-0", "bin": "B-0", "quantity": quantity}]}
    answer = await api.post(MOVEMENTS, json=body)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "/lines/0/quantity")


async def test_nothing_happens_tomorrow(api: httpx.AsyncClient) -> None:
    later = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    body = {"kind": "receive", "occurred_at": later, "lines": [{"sku": "S-0", "bin": "B-0", "quantity": 1}]}
    answer = await api.post(MOVEMENTS, json=body)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "/occurred_at")


def test_problems_are_described(inventory_app: StrataApp) -> None:
    document = inventory_app.openapi_schema.to_schema()
    responses = document["paths"][MOVEMENTS]["post"]["responses"]
    assert {"400", "401", "403", "409", "422", "503"} <= set(responses)
    assert len(responses["409"]["content"]["application/problem+json"]["examples"]) == 2
    assert "412" in document["paths"][f"{PRODUCTS}/{{product_id}}"]["patch"]["responses"]


async def test_refusals_are_worded_for_people(api: httpx.AsyncClient) -> None:
    assert "send a JSON document" in (await api.post(PRODUCTS)).json()["detail"]
    assert "regex" not in (await api.post(PRODUCTS, json={"sku": " a", "name": "b"})).json()["detail"]
