from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest

from strata.app import StrataApp
from strata.identity.roles import Role
from strata.inventory.products.errors import SkuTakenError
from strata.inventory.products.repository import create_product, ensure_products
from strata.inventory.products.schemas import ProductIn
from strata.inventory.quotas import Quota, QuotaExceededError, take
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.inventory import api_client, stocked
from tests.builders.platform import Tenantry

PRODUCTS = "/api/v1/products"


@pytest.fixture(scope="module")
async def context(tenant_on: Tenantry) -> TenantContext:
    return await tenant_on(Tier.SHARED)


@pytest.fixture
async def api(runtime: Runtime, inventory_app: StrataApp, context: TenantContext) -> AsyncIterator[httpx.AsyncClient]:
    async with api_client(inventory_app, runtime, context) as client:
        yield client


async def make(api: httpx.AsyncClient, sku: str, **fields: object) -> dict[str, object]:
    response = await api.post(PRODUCTS, json={"sku": sku, "name": f"Product {sku}", **fields})
    assert response.status_code == 201, response.text
    product: dict[str, object] = response.json()
    return product


async def test_a_product_keeps_what_it_was_given(api: httpx.AsyncClient) -> None:
    given = {
        "sku": "Full-1",
        "name": "Everything",
        "barcode": "4006381333931",
        "unit": "kg",
        "weight_grams": 1000,
        "attributes": {"colour": "red", "fragile": True, "height": 1.5, "note": None},
        "expiry_policy": "required",
        "active": False,
    }
    made = (await api.post(PRODUCTS, json=given)).json()
    assert made == {**made, **given}
    for address in (f"{PRODUCTS}/{made['id']}", f"{PRODUCTS}/by-sku/Full-1"):
        response = await api.get(address)
        assert response.json() == made
        assert response.headers["etag"] == '"v1"'


async def test_skus_are_exact(api: httpx.AsyncClient) -> None:
    await make(api, "case-a")
    await make(api, "CASE-A")
    taken = await api.post(PRODUCTS, json={"sku": "case-a", "name": "again"})
    assert (taken.status_code, taken.json()["code"]) == (409, "sku-taken")
    assert (await api.get(f"{PRODUCTS}/by-sku/Case-A")).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"sku": "", "name": "x"},
        {"sku": " x", "name": "x"},
        {"sku": "x\0", "name": "x"},
        {"sku": "x" * 65, "name": "x"},
        {"sku": "x", "name": ""},
        {"sku": "x"},
        {"sku": "x", "name": "x", "price": 1},
        {"sku": "x", "name": "x", "attributes": {"a\0": 1}},
        {"sku": "x", "name": "x", "attributes": {"a": "\0"}},
        {"sku": "x", "name": "x", "attributes": {"a": [1]}},
        {"sku": "x", "name": "x", "weight_grams": -1},
        {"sku": "x", "name": "x", "weight_grams": 2**53},
        {"sku": "x", "name": "x", "expiry_policy": "sometimes"},
        {"sku": "x", "name": "x", "active": "yes"},
    ],
)
async def test_what_does_not_fit_is_refused_at_the_edge(api: httpx.AsyncClient, body: dict[str, object]) -> None:
    response = await api.post(PRODUCTS, json=body)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"].startswith("application/problem+json")


async def test_a_change_needs_the_version_that_was_read(api: httpx.AsyncClient) -> None:
    made = await make(api, "ETAG-1")
    address = f"{PRODUCTS}/{made['id']}"
    changed = await api.patch(address, json={"name": "New"}, headers={"If-Match": '"v1"'})
    assert (changed.status_code, changed.headers["etag"], changed.json()["version"]) == (200, '"v2"', 2)
    late = await api.patch(address, json={"name": "Late"}, headers={"If-Match": '"v1"'})
    assert (late.status_code, late.headers["etag"]) == (412, '"v2"')
    assert (await api.get(address)).json()["name"] == "New"
    without = await api.patch(address, json={"barcode": "1", "attributes": {"a": 1}})
    assert without.json()["version"] == 3
    cleared = await api.patch(address, json={"barcode": None})
    assert cleared.json()["barcode"] is None
    assert cleared.json()["attributes"] == {"a": 1}
    same = await api.patch(address, json={})
    assert same.headers["etag"] == cleared.headers["etag"]
    unchanged = await api.get(address, headers={"If-None-Match": same.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert (await api.get(address, headers={"If-None-Match": '"v1"'})).status_code == 200


async def test_a_page_leads_to_the_next(runtime: Runtime, inventory_app: StrataApp, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SCHEMA)
    await stocked(runtime, context, skus=7, bins=1)
    async with api_client(inventory_app, runtime, context) as api:
        seen: list[str] = []
        cursor: str | None = None
        sizes = []
        while True:
            params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
            page = (await api.get(PRODUCTS, params=params)).json()
            seen += [item["sku"] for item in page["items"]]
            sizes.append(len(page["items"]))
            cursor = page["next_cursor"]
            if cursor is None:
                break
            # What comes in before the cursor neither repeats nor hides the rest.
            await api.post(PRODUCTS, json={"sku": f"A-{len(sizes)}", "name": "early"})
        assert seen == [f"S-{n}" for n in range(7)]
        assert sizes == [3, 3, 1]
        assert (await api.get(PRODUCTS, params={"limit": 201})).status_code == 422
        assert (await api.get(PRODUCTS, params={"limit": 0})).status_code == 422
        bad = await api.get(PRODUCTS, params={"cursor": "nonsense"})
        assert (bad.status_code, bad.json()["code"]) == (400, "bad-cursor")


async def test_filters_and_fields(api: httpx.AsyncClient) -> None:
    await make(api, "FIND-1", barcode="b-1", active=False)
    await make(api, "FIND-2", attributes={"x": 1})
    await make(api, "FIND_3")
    await make(api, "FIND%4")

    async def found(**params: object) -> list[str]:
        response = await api.get(PRODUCTS, params=params)  # type: ignore[arg-type]
        assert response.status_code == 200, response.text
        return [item["sku"] for item in response.json()["items"]]

    assert await found(q="find-") == ["FIND-1", "FIND-2"]
    assert await found(q="product find") == ["FIND%4", "FIND-1", "FIND-2", "FIND_3"]
    assert await found(q="FIND_") == ["FIND_3"]
    assert await found(q="D%") == ["FIND%4"]
    assert await found(q="find-", active="true") == ["FIND-2"]
    assert await found(barcode="b-1") == ["FIND-1"]
    some = await api.get(PRODUCTS, params={"q": "FIND-2", "fields": "attributes,name"})
    assert some.json()["items"] == [{"name": "Product FIND-2", "attributes": {"x": 1}}]
    bad = await api.get(PRODUCTS, params={"fields": "price"})
    assert (bad.status_code, bad.json()["code"]) == (400, "unknown-fields")
    for address in (f"{PRODUCTS}?q=%00", f"{PRODUCTS}?barcode=%00", f"{PRODUCTS}/by-sku/a%00"):
        assert (await api.get(address)).status_code in {404, 422}, address


async def test_only_what_never_moved_is_deleted(
    runtime: Runtime, api: httpx.AsyncClient, context: TenantContext
) -> None:
    goods = await stocked(runtime, context, skus=1, bins=1, on_hand=1, prefix="del-")
    moved = (await api.get(f"{PRODUCTS}/by-sku/{goods.skus[0]}")).json()
    refused = await api.delete(f"{PRODUCTS}/{moved['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "product-has-history")
    fresh = await make(api, "del-fresh")
    stale = await api.delete(f"{PRODUCTS}/{fresh['id']}", headers={"If-Match": '"v9"'})
    assert stale.status_code == 412
    assert (await api.delete(f"{PRODUCTS}/{fresh['id']}")).status_code == 204
    assert (await api.delete(f"{PRODUCTS}/{fresh['id']}")).status_code == 404


async def test_the_same_key_creates_once(api: httpx.AsyncClient) -> None:
    body = {"sku": "IDEM-1", "name": "Once"}
    first = await api.post(PRODUCTS, json=body, headers={"Idempotency-Key": "k-1"})
    second = await api.post(PRODUCTS, content=b' {"name":"Once" , "sku":"IDEM-1"}', headers={"Idempotency-Key": "k-1"})
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.content == second.content
    assert second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert first.headers["location"] == second.headers["location"]
    other = await api.post(PRODUCTS, json={**body, "name": "Other"}, headers={"Idempotency-Key": "k-1"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency-conflict")
    for bad in ("", "x" * 256):
        assert (await api.post(PRODUCTS, json=body, headers={"Idempotency-Key": bad})).status_code == 400


async def test_who_may_only_look_may_not_write(
    runtime: Runtime, inventory_app: StrataApp, context: TenantContext
) -> None:
    async with api_client(inventory_app, runtime, context, Role.VIEWER) as viewer:
        assert (await viewer.get(PRODUCTS)).status_code == 200
        refused = await viewer.post(PRODUCTS, json={"sku": "no", "name": "no"})
        assert (refused.status_code, refused.json()["code"]) == (403, "permission-missing")


async def test_the_limit_of_the_plan_holds_under_a_race(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)

    async def create(number: int) -> tuple[int, int] | None:
        try:
            async with runtime.tenants.transaction(context) as session:
                await create_product(session, ProductIn(f"R-{number}", "x"), sku_limit=5)
        except QuotaExceededError as error:
            return error.limit, error.used
        return None

    outcomes = await asyncio.gather(*(create(number) for number in range(20)))
    assert outcomes.count(None) == 5
    assert outcomes.count((5, 5)) == 15
    async with runtime.tenants.transaction(context) as session:
        ensured = await ensure_products(session, [("R-new", "x"), ("R-newer", "x")], sku_limit=6)
    assert (ensured.created, ensured.refused) == (1, frozenset({"R-newer"}))


async def test_deactivating_gives_back_and_activating_takes(
    runtime: Runtime, inventory_app: StrataApp, tenant_on: Tenantry
) -> None:
    context = await tenant_on(Tier.SHARED)
    limits = msgspec.structs.replace(context.limits, skus=1)
    async with runtime.tenants.transaction(context) as session:
        first = await create_product(session, ProductIn("ONE", "x"), sku_limit=limits.skus)
    with pytest.raises(QuotaExceededError):
        async with runtime.tenants.transaction(context) as session:
            await create_product(session, ProductIn("TWO", "x"), sku_limit=limits.skus)
    async with api_client(inventory_app, runtime, context) as api:
        assert (await api.patch(f"{PRODUCTS}/{first.id}", json={"active": False})).status_code == 200
    async with runtime.tenants.transaction(context) as session:
        await create_product(session, ProductIn("TWO", "x"), sku_limit=limits.skus)
        with pytest.raises(QuotaExceededError):
            await take(session, Quota.SKUS, limits.skus)
    with pytest.raises(SkuTakenError):
        async with runtime.tenants.transaction(context) as session:
            await create_product(session, ProductIn("TWO", "x"), sku_limit=None)
