"""What all routes that read have in common: entity tags, selected fields, HEAD."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from strata.app import StrataApp
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.inventory import api_client, stocked
from tests.builders.platform import Tenantry

API = "/api/v1"
LISTS = {
    "products": "sku",
    "warehouses": "code",
    "zones": "warehouse",
    "bins": "zone",
    "stock": "on_hand",
    "movements": "kind",
    "ledger": "sequence",
}
ITEMS = ("products", "warehouses", "zones", "bins", "movements")


@pytest.fixture(scope="module")
async def api(runtime: Runtime, inventory_app: StrataApp, tenant_on: Tenantry) -> AsyncIterator[httpx.AsyncClient]:
    context = await tenant_on(Tier.SHARED)
    await stocked(runtime, context, on_hand=3)
    async with api_client(inventory_app, runtime, context) as client:
        yield client


async def addresses(api: httpx.AsyncClient) -> list[str]:
    first = {name: (await api.get(f"{API}/{name}")).json()["items"][0]["id"] for name in ITEMS}
    items = [f"{API}/{name}/{identity}" for name, identity in first.items()]
    return [*(f"{API}/{name}" for name in LISTS), *items, f"{API}/products/by-sku/S-0"]


async def test_whoever_has_it_already_is_told_so(api: httpx.AsyncClient) -> None:
    for address in await addresses(api):
        tag = (await api.get(address)).headers["etag"]
        same = await api.get(address, headers={"If-None-Match": f'"other", {tag}'})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag), address
        other = await api.get(address, headers={"If-None-Match": '"other"'})
        assert (other.status_code, other.headers["etag"]) == (200, tag), address


@pytest.mark.parametrize("name", LISTS)
async def test_a_changed_list_has_another_tag(
    runtime: Runtime, inventory_app: StrataApp, tenant_on: Tenantry, name: str
) -> None:
    context = await tenant_on(Tier.SHARED)
    async with api_client(inventory_app, runtime, context) as api:
        await stocked(runtime, context, on_hand=1)
        tag = (await api.get(f"{API}/{name}")).headers["etag"]
        await stocked(runtime, context, on_hand=1, prefix="more-")
        assert (await api.get(f"{API}/{name}", headers={"If-None-Match": tag})).status_code == 200


@pytest.mark.parametrize(("name", "field"), LISTS.items())
async def test_lists_give_only_what_is_selected_page_by_page(api: httpx.AsyncClient, name: str, field: str) -> None:
    whole = (await api.get(f"{API}/{name}")).json()["items"]
    found, cursor = [], None
    while True:
        params = {"fields": field, "limit": "1", **({"cursor": cursor} if cursor else {})}
        page = (await api.get(f"{API}/{name}", params=params)).json()
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == [{field: item[field]} for item in whole]
    unknown = await api.get(f"{API}/{name}", params={"fields": f"{field},price"})
    assert (unknown.status_code, unknown.json()["unknown"]) == (400, ["price"])


@pytest.mark.parametrize("name", ITEMS)
async def test_items_give_only_what_is_selected(api: httpx.AsyncClient, name: str) -> None:
    item = (await api.get(f"{API}/{name}")).json()["items"][0]
    address = f"{API}/{name}/{item['id']}"
    selected = await api.get(address, params={"fields": "created_at, id"})
    assert selected.json() == {"id": item["id"], "created_at": item["created_at"]}
    assert (await api.get(address, params={"fields": "price"})).status_code == 400
    if "version" in item:
        assert selected.headers["etag"] == (await api.get(address)).headers["etag"]


async def test_head_answers_as_get_does_without_the_content(api: httpx.AsyncClient) -> None:
    for address in [*await addresses(api), f"{API}/products/by-sku/NONE", f"{API}/nowhere"]:
        got, head = await api.get(address), await api.head(address)
        assert head.content == b"", address
        same = ("content-type", "content-length", "etag", "cache-control")
        assert head.status_code == got.status_code, address
        assert [head.headers.get(name) for name in same] == [got.headers.get(name) for name in same], address
    refused = await api.head(f"{API}/movements/0197a000-0000-7000-8000-000000000001/reversal")
    assert (refused.status_code, refused.content) == (405, b"")
    assert "HEAD" not in refused.headers["allow"]
    assert "GET, HEAD" in (await api.delete(f"{API}/products")).headers["allow"]


@pytest.mark.parametrize("number", ["1.0", "1e2", "1.5", '"1"', "true"])
async def test_whole_numbers_are_written_as_whole_numbers(api: httpx.AsyncClient, number: str) -> None:
    for address, body in (
        ("products", f'{{"sku":"N","name":"N","weight_grams":{number}}}'),
        ("movements", f'{{"kind":"receive","lines":[{{"sku":"S-0","bin":"B-0","quantity":{number}}}]}}'),
    ):
        answer = await api.post(f"{API}/{address}", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, answer.text
