"""Fields that a tenant has defined: enforced on API, import and page alike, and found by, on every tier."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import text

from strata.app import StrataApp, create_app
from strata.inventory.movements.errors import LinesRefusedError
from strata.inventory.products.repository import ensure_products
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.inventory import api_client, move, stocked
from tests.builders.platform import Tenantry, admin_of
from tests.builders.settings import settle

PRODUCTS, MOVEMENTS = "/api/v1/products", "/api/v1/movements"
FIELDS = {
    "product": [
        {"key": "colour", "label": "Colour", "type": "select", "options": ["red", "blue"], "required": True},
        {"key": "size", "label": "Size", "type": "number"},
        {"key": "since", "label": "Since", "type": "date"},
        {"key": "care", "label": "Care"},
    ],
    "movement": [{"key": "carrier", "label": "Carrier", "required": True}],
}


@pytest.fixture(scope="module")
def app(runtime: Runtime) -> StrataApp:
    return create_app(runtime)


@pytest.fixture(params=Tier, scope="module")
async def context(request: pytest.FixtureRequest, runtime: Runtime, tenant_on: Tenantry) -> TenantContext:
    made = await tenant_on(request.param)
    await stocked(runtime, made, on_hand=10)
    return await settle(runtime, made.slug, {"custom_fields": FIELDS})


@pytest.fixture
async def api(runtime: Runtime, app: StrataApp, context: TenantContext) -> AsyncIterator[httpx.AsyncClient]:
    async with api_client(app, runtime, context) as client:
        yield client


async def make(api: httpx.AsyncClient, sku: str, **custom: object) -> httpx.Response:
    return await api.post(PRODUCTS, json={"sku": sku, "name": sku, "custom": custom})


async def test_values_are_kept_changed_and_found_by(
    runtime: Runtime, api: httpx.AsyncClient, context: TenantContext
) -> None:
    for sku, colour, size in (("C-1", "red", 10), ("C-2", "red", 12.5), ("C-3", "blue", 10)):
        made = await make(api, sku, colour=colour, size=size, since="2026-02-28")
        assert made.json()["custom"] == {"colour": colour, "size": size, "since": "2026-02-28"}, made.text

    async def found(**custom: str) -> list[str]:
        page = await api.get(PRODUCTS, params={f"custom.{key}": value for key, value in custom.items()})
        return [item["sku"] for item in page.json()["items"]]

    assert await found(colour="red") == ["C-1", "C-2"]
    assert await found(colour="red", size="12.5") == ["C-2"]
    assert await found(colour="green") == []
    product = (await api.get(f"{PRODUCTS}/by-sku/C-1")).json()
    address = f"{PRODUCTS}/{product['id']}"
    assert (await api.patch(address, json={"custom": {"size": 1}})).status_code == 422
    assert (await api.patch(address, json={"name": "kept"})).json()["custom"] == product["custom"]
    assert (await api.patch(address, json={"custom": {"colour": "blue"}})).json()["custom"] == {"colour": "blue"}
    assert await found(colour="red") == ["C-2"]
    assert await found(colour="blue") == ["C-1", "C-3"]
    assert (await api.delete(address)).status_code == 204
    assert await found(colour="blue") == ["C-3"]
    for sku in ("C-2", "C-3"):
        await api.delete(f"{PRODUCTS}/{(await api.get(f'{PRODUCTS}/by-sku/{sku}')).json()['id']}")
    async with admin_of(runtime, context.placement.cell) as admin:
        left = (
            f'SELECT count(*) FROM "{context.placement.schema_name}".custom_value WHERE tenant_id = $1 AND entity = $2'
        )
        assert await admin.fetchval(left, context.id, "product") == 0


@pytest.mark.parametrize(
    ("custom", "paths"),
    [
        ({}, ["/custom/colour"]),
        ({"colour": "green"}, ["/custom/colour"]),
        ({"colour": "red", "weight": 1}, ["/custom/weight"]),
        ({"colour": "red", "size": "big"}, ["/custom/size"]),
        ({"colour": "red", "since": "2026-02-30"}, ["/custom/since"]),
        ({"colour": "red", "since": "20260228"}, ["/custom/since"]),
        ({"colour": "red", "care": ""}, ["/custom/care"]),
        ({"colour": 1, "size": "x", "shape": "round"}, ["/custom/shape", "/custom/colour", "/custom/size"]),
    ],
)
async def test_what_does_not_fit_is_refused_by_path(
    api: httpx.AsyncClient, custom: dict[str, object], paths: list[str]
) -> None:
    refused = await make(api, "NEVER", **custom)
    assert (refused.status_code, refused.json()["code"]) == (422, "custom-fields-refused"), refused.text
    assert [error["path"] for error in refused.json()["errors"]] == paths


async def test_a_parameter_that_is_no_field_is_refused(api: httpx.AsyncClient) -> None:
    for path in (PRODUCTS, MOVEMENTS):
        refused = await api.get(path, params={"custom.weight": "1"})
        assert (refused.status_code, refused.json()["code"]) == (400, "unknown-parameters")


async def test_movements_have_them_too(runtime: Runtime, api: httpx.AsyncClient, context: TenantContext) -> None:
    movement = {"kind": "receive", "lines": [{"sku": "S-0", "bin": "B-0", "quantity": 1}]}
    refused = await api.post(MOVEMENTS, json=movement)
    assert [error["path"] for error in refused.json()["errors"]] == ["/custom/carrier"]
    posted = await api.post(MOVEMENTS, json={**movement, "custom": {"carrier": "DHL"}})
    assert (posted.status_code, posted.json()["custom"]) == (201, {"carrier": "DHL"})
    assert (await api.get(f"{MOVEMENTS}/{posted.json()['id']}")).json()["custom"] == {"carrier": "DHL"}
    found = (await api.get(MOVEMENTS, params={"custom.carrier": "DHL"})).json()["items"]
    assert posted.json()["id"] in [item["id"] for item in found]
    assert (await api.get(MOVEMENTS, params={"custom.carrier": "UPS"})).json()["items"] == []
    with pytest.raises(LinesRefusedError):
        async with runtime.tenants.transaction(context) as session:
            await move(session, "receive", ("S-0", "B-0", 1))


async def test_products_that_an_import_would_make_without_them_are_refused(
    runtime: Runtime, context: TenantContext
) -> None:
    async with runtime.tenants.transaction(context) as session:
        ensured = await ensure_products(session, [("S-0", "there"), ("NEW-1", "new")], sku_limit=None)
    assert ensured.created == 0
    assert ensured.lacking == {"NEW-1": "«Colour» is required."}


async def test_a_value_is_found_through_the_index(
    runtime: Runtime, api: httpx.AsyncClient, context: TenantContext
) -> None:
    """Within the tenant's own transaction, behind row-level security: what an index on the document could not do."""
    await make(api, "PLAN", colour="red")
    statement = (
        "EXPLAIN SELECT entity_id FROM custom_value"
        " WHERE tenant_id = :tenant AND entity = 'product' AND key = 'colour' AND value = 'red'"
    )
    async with runtime.tenants.transaction(context) as session:
        await session.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(await session.scalars(text(statement), {"tenant": context.id}))
    assert "ix_custom_value_tenant_id_entity_key_value" in plan
    assert "value = 'red'" in plan.partition("Index Cond:")[2].partition("Filter:")[0]
