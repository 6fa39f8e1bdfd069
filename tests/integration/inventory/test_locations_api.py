from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest

from strata.app import StrataApp
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.inventory import api_client, stocked
from tests.builders.platform import Tenantry

API = "/api/v1"


@pytest.fixture
async def context(tenant_on: Tenantry) -> TenantContext:
    return await tenant_on(Tier.SHARED)


@pytest.fixture
async def api(runtime: Runtime, inventory_app: StrataApp, context: TenantContext) -> AsyncIterator[httpx.AsyncClient]:
    async with api_client(inventory_app, runtime, context) as client:
        yield client


async def test_places_know_what_they_stand_in(runtime: Runtime, api: httpx.AsyncClient, context: TenantContext) -> None:
    await stocked(runtime, context, bins=3, prefix="N")
    await stocked(runtime, context, bins=1, prefix="M")
    bins = (await api.get(f"{API}/bins", params={"limit": 2})).json()
    assert [(each["code"], each["zone"], each["warehouse"]) for each in bins["items"]] == [
        ("MB-0", "Z", "MW"),
        ("NB-0", "Z", "NW"),
    ]
    rest = (await api.get(f"{API}/bins", params={"limit": 2, "cursor": bins["next_cursor"]})).json()
    assert [each["code"] for each in rest["items"]] == ["NB-1", "NB-2"]
    only = (await api.get(f"{API}/bins", params={"warehouse": "MW"})).json()
    assert [each["code"] for each in only["items"]] == ["MB-0"]
    zones = (await api.get(f"{API}/zones", params={"limit": 1})).json()
    assert zones["items"][0]["warehouse"] == "MW"
    further = (await api.get(f"{API}/zones", params={"limit": 1, "cursor": zones["next_cursor"]})).json()
    assert (further["items"][0]["warehouse"], further["next_cursor"]) == ("NW", None)
    one = await api.get(f"{API}/bins/{bins['items'][0]['id']}")
    assert one.json() == bins["items"][0]
    for what in ("warehouses", "zones", "bins"):
        assert (await api.get(f"{API}/{what}/{uuid4()}")).status_code == 404


async def test_codes_are_taken_once(runtime: Runtime, api: httpx.AsyncClient, context: TenantContext) -> None:
    await stocked(runtime, context)
    zone = (await api.get(f"{API}/zones")).json()["items"][0]
    for address, body in (
        ("warehouses", {"code": "W", "name": "again"}),
        ("zones", {"warehouse_id": zone["warehouse_id"], "code": "Z", "name": "again"}),
        ("bins", {"zone_id": zone["id"], "code": "B-0"}),
    ):
        taken = await api.post(f"{API}/{address}", json=body)
        assert (taken.status_code, taken.json()["code"]) == (409, "location-code-taken"), taken.text
    nowhere = await api.post(f"{API}/bins", json={"zone_id": str(uuid4()), "code": "X"})
    assert (nowhere.status_code, nowhere.json()["errors"][0]["path"]) == (422, "/zone_id")


async def test_what_holds_something_stays_in_use(
    runtime: Runtime, api: httpx.AsyncClient, context: TenantContext
) -> None:
    await stocked(runtime, context, skus=1, bins=1, on_hand=5)
    bin_ = (await api.get(f"{API}/bins")).json()["items"][0]
    addresses = {
        "warehouse": f"{API}/warehouses/{bin_['warehouse_id']}",
        "zone": f"{API}/zones/{bin_['zone_id']}",
        "bin": f"{API}/bins/{bin_['id']}",
    }
    for address in addresses.values():
        refused = await api.patch(address, json={"active": False})
        assert (refused.status_code, refused.json()["code"]) == (409, "location-in-use"), address
    pick = {"kind": "pick", "lines": [{"sku": "S-0", "bin": "B-0", "quantity": 5}]}
    assert (await api.post(f"{API}/movements", json=pick)).status_code == 201
    for place in ("bin", "zone", "warehouse"):
        off = await api.patch(addresses[place], json={"active": False}, headers={"If-Match": '"v1"'})
        assert (off.status_code, off.headers["etag"]) == (200, '"v2"'), off.text
    receive = {"kind": "receive", "lines": [{"sku": "S-0", "bin": "B-0", "quantity": 5}]}
    refused = await api.post(f"{API}/movements", json=receive)
    assert refused.json()["errors"][0]["code"] == "bin-inactive"
    # On again only from the top: an active bin stands in an active zone of an active warehouse.
    assert (await api.patch(addresses["bin"], json={"active": True})).status_code == 422
    assert (await api.patch(addresses["zone"], json={"active": True})).status_code == 422
    for place in ("warehouse", "zone", "bin"):
        assert (await api.patch(addresses[place], json={"active": True})).status_code == 200
    assert (await api.post(f"{API}/movements", json=receive)).status_code == 201
