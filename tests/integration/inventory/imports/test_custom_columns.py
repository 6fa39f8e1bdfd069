"""A tenant that requires custom fields of products and movements imports: by the command's way, by upload, by the form."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from strata.app import StrataApp, create_app
from strata.inventory.imports import repository
from strata.inventory.imports.errors import MappingRefusedError
from strata.inventory.imports.mapping import Mapping, parse
from strata.inventory.imports.runner import ImportRunner
from strata.inventory.imports.schemas import ImportOptions
from strata.platform.paging import Paging
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.imports import books, stock_list
from tests.builders.inventory import api_client
from tests.builders.platform import Tenantry
from tests.builders.queued_imports import importing, seen, upload
from tests.builders.settings import settle

FIELDS = {
    "product": [
        {"key": "colour", "label": "Colour", "type": "select", "options": ["red", "blue"], "required": True},
        {"key": "size", "label": "Size", "type": "number"},
    ],
    "movement": [{"key": "carrier", "label": "Carrier", "required": True}],
}
HEADER = "sku,name,quantity,Colour,Size,By"
ROWS = ["a,A,5,red,12.5,DHL", "b,B,2,green,1,DHL", "c,C,3,blue,,UPS", "d,D,1,,,UPS", "a,A,4,,,UPS", "e,E,9,red,2,"]
COLUMNS = {"product.custom.colour": "Colour", "product.custom.size": "Size", "movement.custom.carrier": "By"}


def mapping(kind: str = "receive", *, opening: str = "") -> Mapping:
    return parse(
        "ours",
        f"""
        title = "Ours"
        post = [{{ kind = "{kind}" }}]
        [product]
        sku = {{ column = "sku" }}
        [product.custom]
        colour = "Colour"
        size = "Size"
        [movement]
        quantity = "quantity"
        warehouse = "W"
        zone = "Z"
        bin = "B"
        [movement.custom]
        carrier = {{ column = "By" {opening} }}
        """.encode(),
    )


@pytest.fixture(scope="module")
def app(runtime: Runtime) -> StrataApp:
    return create_app(runtime)


@pytest.fixture
async def context(runtime: Runtime, tenant_on: Tenantry) -> TenantContext:
    return await settle(runtime, (await tenant_on(Tier.SCHEMA)).slug, {"custom_fields": FIELDS})


@pytest.fixture
async def api(runtime: Runtime, app: StrataApp, context: TenantContext) -> AsyncIterator[httpx.AsyncClient]:
    async with api_client(app, runtime, context) as client:
        yield client


async def found(api: httpx.AsyncClient, of: str, **custom: str) -> list[dict[str, object]]:
    page = await api.get(f"/api/v1/{of}", params={f"custom.{key}": value for key, value in custom.items()})
    items: list[dict[str, object]] = page.json()["items"]
    return items


async def check_imported(api: httpx.AsyncClient, runtime: Runtime, context: TenantContext) -> None:
    """That ROWS are in the ledger, with their values, or among the refusals, with the reason."""
    assert (await books(runtime, context)).by_sku == {"a": 9, "c": 3}
    assert {each["sku"]: each["custom"] for each in await found(api, "products")} == {
        "a": {"colour": "red", "size": 12.5},
        "c": {"colour": "blue"},
    }
    assert [each["sku"] for each in await found(api, "products", colour="red", size="12.5")] == ["a"]
    assert len(await found(api, "movements", carrier="UPS")) == 1
    assert [each["custom"] for each in await found(api, "movements", carrier="DHL")] == [{"carrier": "DHL"}]
    async with runtime.tenants.reading(context) as session:
        [run] = (await repository.list_runs(session, Paging())).items
        refusals = (await repository.list_refusals(session, run.id, Paging())).items
    assert [(each.line, each.code) for each in refusals] == [
        (3, "custom-unfit"),
        (5, "custom-required"),
        (7, "custom-missing"),
    ]
    assert refusals[0].message == "Line 3 was refused: «Colour»: choose from red, blue."
    assert "«d», and no line gives what it needs: «Colour» is required;" in refusals[1].message
    assert refusals[2].message == "Line 7 was refused: «Carrier» is required."


async def test_by_the_command_s_way(
    api: httpx.AsyncClient, runtime: Runtime, context: TenantContext, tmp_path: Path
) -> None:
    file = stock_list(tmp_path / "f.csv", ROWS, header=HEADER)
    runner = ImportRunner(runtime.tenants, context)
    summary = await runner.run(file, mapping(), ImportOptions(), actor="tests")
    assert (summary.run.lines_accepted, summary.run.products_created, summary.run.movements_posted) == (3, 2, 2)
    await check_imported(api, runtime, context)


async def test_by_upload_and_by_form(api: httpx.AsyncClient, runtime: Runtime, context: TenantContext) -> None:
    content = "\n".join([HEADER, *ROWS, ""]).encode()
    unknown = await upload(api, content, **COLUMNS, **{"product.custom.weight": "Size"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "import-mapping-refused")
    assert "product.custom.weight: There is no custom field «weight»" in unknown.json()["detail"]
    absent = await upload(api, content, **COLUMNS | {"product.custom.size": "Height"})
    assert (absent.status_code, absent.json()["missing"]) == (400, ["Height"])
    assert (await upload(api, content, **{"custom.size": "Size"})).json()["code"] == "unknown-parameters"

    answer = await upload(api, content, **COLUMNS)
    assert answer.status_code == 202, answer.text
    async with importing(runtime):
        assert (await seen(api, answer.headers["Location"]))["state"] == "done"
    await check_imported(api, runtime, context)

    form = (await api.get("/imports", headers={"Accept": "text/html"})).text
    assert all(f'name="{name}"' in form for name in COLUMNS)
    files = {"file": ("f.csv", content)}
    again = await api.post("/imports", data={"mapping": "stock-list", **COLUMNS}, files=files)
    assert (again.status_code, f"/api/v1{again.headers['Location']}") == (303, answer.headers["Location"]), (
        "the same import"
    )
    wrong = {**COLUMNS, "product.custom.size": "Height"}
    refused = await api.post("/imports", data={"mapping": "stock-list", **wrong}, files=files)
    assert (refused.status_code, 'value="Height"' in refused.text) == (400, True)


async def test_opening_stock_has_what_the_mapping_says_or_there_is_none(
    api: httpx.AsyncClient, runtime: Runtime, context: TenantContext, tmp_path: Path
) -> None:
    file = stock_list(tmp_path / "f.csv", ["a,A,5,,,DHL", "a,A,1,red,,DHL"], header=HEADER)
    runner = ImportRunner(runtime.tenants, context)
    with pytest.raises(MappingRefusedError, match="«Carrier» is required"):
        await runner.run(file, mapping("pick"), ImportOptions(opening_stock=True), actor="tests")
    whole = mapping("pick", opening=', opening = "stocktake"')
    summary = await runner.run(file, whole, ImportOptions(opening_stock=True), actor="tests")
    assert (summary.run.opening_sum, summary.run.lines_refused) == (6, 0)
    [opened] = await found(api, "movements", carrier="stocktake")
    assert opened["reason"] == "opening-stock"
    assert [each["custom"] for each in await found(api, "products")] == [{"colour": "red"}]
