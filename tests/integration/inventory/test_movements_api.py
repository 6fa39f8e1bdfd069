from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from strata.app import StrataApp
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.inventory import api_client, stocked
from tests.builders.platform import Tenantry

MOVEMENTS = "/api/v1/movements"


@pytest.fixture
async def context(runtime: Runtime, tenant_on: Tenantry) -> TenantContext:
    """With products S-0 to S-2 and bins B-0 to B-2, ten of each in each."""
    context = await tenant_on(Tier.SHARED)
    await stocked(runtime, context, skus=3, bins=3, on_hand=10)
    return context


@pytest.fixture
async def api(runtime: Runtime, inventory_app: StrataApp, context: TenantContext) -> AsyncIterator[httpx.AsyncClient]:
    async with api_client(inventory_app, runtime, context) as client:
        yield client


def body(kind: str, *lines: dict[str, Any], **head: object) -> dict[str, Any]:
    return {"kind": kind, "lines": [{"sku": "S-0", "bin": "B-0", **line} for line in lines], **head}


async def stock_of(api: httpx.AsyncClient, sku: str = "S-0") -> dict[str, int]:
    items = (await api.get("/api/v1/stock", params={"sku": sku})).json()["items"]
    return {item["bin"] + item["batch"]: item["on_hand"] for item in items}


async def test_lines_of_one_key_are_one_ledger_line(api: httpx.AsyncClient) -> None:
    posted = await api.post(
        MOVEMENTS, json=body("pick", {"quantity": 3}, {"quantity": 2, "sku": "S-1"}, {"quantity": 4})
    )
    assert [(line["sku"], line["quantity"], line["on_hand"], line["sequence"]) for line in posted.json()["lines"]] == [
        ("S-0", -7, 3, 2),
        ("S-1", -2, 8, 2),
    ]


async def test_lines_are_judged_together(api: httpx.AsyncClient) -> None:
    short = await api.post(
        MOVEMENTS,
        json=body(
            "pick", {"quantity": 6}, {"quantity": 6}, {"sku": "S-1", "quantity": 11}, {"sku": "S-2", "quantity": 1}
        ),
    )
    assert [(each["sku"], each["wanted"], each["on_hand"]) for each in short.json()["shortages"]] == [
        ("S-0", 12, 10),
        ("S-1", 11, 10),
    ]
    assert await stock_of(api, "S-2") == {"B-0": 10, "B-1": 10, "B-2": 10}


async def test_unknown_codes_are_named_by_line(api: httpx.AsyncClient) -> None:
    refused = await api.post(
        MOVEMENTS,
        json=body(
            "transfer",
            {"quantity": 1, "to_bin": "B-1"},
            {"sku": "s-0", "bin": "nowhere", "to_bin": "neither", "quantity": 1},
        ),
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "lines-refused")
    assert [(error["path"], error["code"]) for error in refused.json()["errors"]] == [
        ("/lines/1/sku", "sku-unknown"),
        ("/lines/1/bin", "bin-unknown"),
        ("/lines/1/to_bin", "bin-unknown"),
    ]


async def test_an_inactive_product_does_not_move(api: httpx.AsyncClient) -> None:
    product = (await api.get("/api/v1/products/by-sku/S-0")).json()
    await api.patch(f"/api/v1/products/{product['id']}", json={"active": False})
    refused = await api.post(MOVEMENTS, json=body("pick", {"quantity": 1}))
    assert refused.json()["errors"][0]["code"] == "sku-inactive"


async def test_a_count_sets_what_was_found(api: httpx.AsyncClient) -> None:
    less = await api.post(MOVEMENTS, json=body("count", {"quantity": 7}, reason="cycle count"))
    assert less.json()["lines"][0] | {"sequence": 2} == {
        "sku": "S-0", "bin": "B-0", "batch": "", "quantity": -3, "on_hand": 7, "sequence": 2,
    }  # fmt: skip
    same = await api.post(MOVEMENTS, json=body("count", {"quantity": 7}))
    assert (same.status_code, same.json()["lines"]) == (201, [])
    parts = await api.post(MOVEMENTS, json=body("count", {"quantity": 7}, {"quantity": 5}))
    assert parts.json()["lines"][0]["on_hand"] == 12
    nothing = await api.post(MOVEMENTS, json=body("count", {"quantity": 0, "batch": "never seen"}))
    assert (nothing.status_code, nothing.json()["lines"]) == (201, [])
    assert await stock_of(api) == {"B-0": 12, "B-1": 10, "B-2": 10}


async def test_what_cancels_out_is_refused(api: httpx.AsyncClient) -> None:
    refused = await api.post(MOVEMENTS, json=body("adjust", {"quantity": 5}, {"quantity": -5}))
    assert (refused.status_code, refused.json()["code"]) == (422, "movement-cancels-out")


async def test_batches_and_their_expiry(api: httpx.AsyncClient) -> None:
    await api.post("/api/v1/products", json={"sku": "MILK", "name": "Milk", "expiry_policy": "required"})

    async def move(kind: str, **line: object) -> httpx.Response:
        return await api.post(MOVEMENTS, json=body(kind, {"sku": "MILK", "quantity": 5, **line}))

    def code(response: httpx.Response) -> str:
        assert response.status_code == 422, response.text
        return str(response.json()["errors"][0]["code"])

    assert code(await move("receive", batch="L1")) == "expiry-missing"
    assert (await move("receive", batch="L1", expires_on="2027-01-31")).status_code == 201
    assert (await move("receive", batch="L1")).status_code == 201
    assert code(await move("receive", batch="L1", expires_on="2027-02-28")) == "expiry-differs"
    assert (await move("receive", batch="L2", expires_on="2027-02-28")).status_code == 201
    assert (await move("transfer", batch="L1", to_bin="B-1")).status_code == 201
    items = (await api.get("/api/v1/stock", params={"sku": "MILK"})).json()["items"]
    assert [(item["bin"], item["batch"], item["expires_on"], item["on_hand"]) for item in items] == [
        ("B-0", "L1", "2027-01-31", 5),
        ("B-0", "L2", "2027-02-28", 5),
        ("B-1", "L1", "2027-01-31", 5),
    ]
    undated = await api.post(MOVEMENTS, json=body("receive", {"quantity": 1, "expires_on": "2027-01-01"}))
    assert code(undated) == "expiry-not-kept"


async def test_a_refused_movement_leaves_no_balance_behind(api: httpx.AsyncClient) -> None:
    await api.post("/api/v1/products", json={"sku": "NEW", "name": "New"})
    refused = await api.post(
        MOVEMENTS,
        json=body("transfer", {"sku": "NEW", "quantity": 1, "to_bin": "B-1"}, {"quantity": 1, "to_bin": "B-1"}),
    )
    assert refused.json()["shortages"] == [{"sku": "NEW", "bin": "B-0", "wanted": 1, "on_hand": 0, "batch": ""}]
    assert await stock_of(api, "NEW") == {}


async def test_head_and_time_are_kept(api: httpx.AsyncClient) -> None:
    head = {"reference": "SO-1", "reason": "sale", "note": "two\nlines", "occurred_at": "2026-01-02T03:04:05+02:00"}
    posted = (await api.post(MOVEMENTS, json=body("pick", {"quantity": 1}, **head))).json()
    assert (posted["reference"], posted["reason"], posted["note"]) == ("SO-1", "sale", "two\nlines")
    assert posted["occurred_at"] == "2026-01-02T01:04:05Z"
    assert posted["created_by"] == "tester"
    listed = (await api.get(MOVEMENTS, params={"reference": "SO-1"})).json()["items"]
    assert listed == [{key: value for key, value in posted.items() if key != "lines"}]
    assert (await api.get(f"{MOVEMENTS}/{posted['id']}")).json() == posted
    naive = await api.post(MOVEMENTS, json=body("pick", {"quantity": 1}, occurred_at="2026-01-02T03:04:05"))
    assert naive.status_code == 422


async def test_lists_go_from_new_to_old_without_gap(api: httpx.AsyncClient) -> None:
    made = [(await api.post(MOVEMENTS, json=body("pick", {"quantity": 1}))).json()["id"] for _ in range(5)]
    for address, key in ((MOVEMENTS, "id"), ("/api/v1/ledger", "movement_id")):
        seen: list[str] = []
        params: dict[str, Any] = {
            "limit": 2,
            **({"sku": "S-0", "bin": "B-0"} if key == "movement_id" else {"kind": "pick"}),
        }
        while True:
            page = (await api.get(address, params=params)).json()
            seen += [item[key] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            params["cursor"] = page["next_cursor"]
        assert seen[:5] == made[::-1]
        assert len(seen) == len(set(seen)) == (6 if key == "movement_id" else 5)


async def test_the_same_key_moves_once(api: httpx.AsyncClient) -> None:
    pick, key = body("pick", {"quantity": 2}), {"Idempotency-Key": str(uuid4())}
    answers = await asyncio.gather(*(api.post(MOVEMENTS, json=pick, headers=key) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 11
    assert (await stock_of(api))["B-0"] == 8
    other = await api.post(MOVEMENTS, json=body("pick", {"quantity": 3}), headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency-conflict")


async def test_a_refusal_is_not_kept_under_the_key(api: httpx.AsyncClient) -> None:
    pick, key = body("pick", {"quantity": 11}), {"Idempotency-Key": "refused"}
    assert (await api.post(MOVEMENTS, json=pick, headers=key)).status_code == 409
    await api.post(MOVEMENTS, json=body("receive", {"quantity": 1}))
    assert (await api.post(MOVEMENTS, json=pick, headers=key)).status_code == 201


async def test_one_key_serves_one_route(api: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "shared"}
    posted = await api.post(MOVEMENTS, json=body("pick", {"quantity": 1}), headers=key)
    reversal = await api.post(f"{MOVEMENTS}/{posted.json()['id']}/reversal", headers=key)
    assert (reversal.status_code, reversal.json()["code"]) == (409, "idempotency-conflict")


async def test_a_reversal_restores_once(api: httpx.AsyncClient) -> None:
    before = await stock_of(api)
    moved = (await api.post(MOVEMENTS, json=body("transfer", {"quantity": 4, "to_bin": "B-1"}, reference="T-1"))).json()
    answers = await asyncio.gather(*(api.post(f"{MOVEMENTS}/{moved['id']}/reversal") for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"already-reversed"}
    assert await stock_of(api) == before
    reversal = next(answer.json() for answer in answers if answer.status_code == 201)
    assert (reversal["kind"], reversal["reverses_id"], reversal["reference"]) == ("reversal", moved["id"], "T-1")
    again = await api.post(f"{MOVEMENTS}/{reversal['id']}/reversal")
    assert (again.status_code, again.json()["code"]) == (409, "not-reversible")
    assert (await api.post(f"{MOVEMENTS}/{uuid4()}/reversal")).status_code == 404


async def test_a_reversal_cannot_take_what_is_gone(api: httpx.AsyncClient) -> None:
    received = (await api.post(MOVEMENTS, json=body("receive", {"quantity": 5}))).json()
    await api.post(MOVEMENTS, json=body("pick", {"quantity": 12}))
    key = {"Idempotency-Key": "reverse"}
    refused = await api.post(f"{MOVEMENTS}/{received['id']}/reversal", headers=key)
    assert (refused.status_code, refused.json()["code"]) == (409, "stock-shortage")
    await api.post(MOVEMENTS, json=body("receive", {"quantity": 2}))
    once = await api.post(f"{MOVEMENTS}/{received['id']}/reversal", json={"reason": "mistake"}, headers=key)
    assert once.status_code == 201, once.text
    replay = await api.post(f"{MOVEMENTS}/{received['id']}/reversal", json={"reason": "mistake"}, headers=key)
    assert (replay.content, replay.headers["idempotency-replayed"]) == (once.content, "true")


async def test_a_reversal_reaches_what_is_inactive_by_now(api: httpx.AsyncClient) -> None:
    picked = (await api.post(MOVEMENTS, json=body("pick", {"quantity": 1}))).json()
    product = (await api.get("/api/v1/products/by-sku/S-0")).json()
    await api.patch(f"/api/v1/products/{product['id']}", json={"active": False, "sku": "OLD-0"})
    reversal = await api.post(f"{MOVEMENTS}/{picked['id']}/reversal")
    assert (reversal.status_code, reversal.json()["lines"][0]["sku"]) == (201, "OLD-0")


async def test_more_than_can_be_kept_is_refused(api: httpx.AsyncClient) -> None:
    most = body("receive", *([{"quantity": 10**12}] * 1000))
    for _ in range(9):
        assert (await api.post(MOVEMENTS, json=most)).status_code == 201
    refused = await api.post(MOVEMENTS, json=most)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "too-large")


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "receive"},
        {"kind": "receive", "lines": []},
        {"kind": "sell", "lines": [{"sku": "S-0", "bin": "B-0", "quantity": 1}]},
        {"kind": "reversal", "lines": [{"sku": "S-0", "bin": "B-0", "quantity": 1}]},
        {"kind": "pick", "lines": [{"sku": "S-0", "bin": "B-0", "quantity": 1.5}]},
        {"kind": "pick", "lines": [{"sku": "S-0", "bin": "B-0", "quantity": 0}]},
        {"kind": "pick", "lines": [{"sku": "S-0", "bin": "B-0", "quantity": 1, "price": 2}]},
        {"kind": "pick", "lines": [{"sku": "S-0", "bin": "B-0", "quantity": 2**53}]},
        {"kind": "pick", "lines": [{"sku": "S-0", "bin": "B-0", "quantity": 1}], "note": "\0"},
        {"kind": "pick", "lines": [{"sku": "S-0", "bin": "B-0", "quantity": 1}], "id": str(uuid4())},
        {"kind": "pick", "lines": [{"sku": "S-0", "bin": "B-0", "quantity": 1}], "occurred_at": "9999-99-99T00:00:00Z"},
        {
            "kind": "pick",
            "lines": [{"sku": "S-0", "bin": "B-0", "quantity": 1}],
            "occurred_at": "0001-01-01T00:00:00+14:00",
        },
    ],
)
async def test_what_does_not_fit_is_refused_at_the_edge(api: httpx.AsyncClient, document: dict[str, Any]) -> None:
    response = await api.post(MOVEMENTS, json=document)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"].startswith("application/problem+json")
