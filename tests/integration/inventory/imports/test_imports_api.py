from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import httpx
import pytest

from strata.app import StrataApp, create_app
from strata.identity.roles import Role
from strata.inventory.routes import ROUTES
from strata.platform.settings import HttpSettings
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.imports import books
from tests.builders.inventory import api_client
from tests.builders.platform import Tenantry, second_process

FILE = "sku,name,quantity\n" + "".join(f"s{n},Product {n},{n % 3}\n" for n in range(30))


@pytest.fixture
async def context(tenant_on: Tenantry) -> TenantContext:
    return await tenant_on(Tier.SHARED)


@pytest.fixture
async def client(
    inventory_app: StrataApp, runtime: Runtime, context: TenantContext
) -> AsyncIterator[httpx.AsyncClient]:
    async with api_client(inventory_app, runtime, context) as client:
        yield client


async def chunks(content: bytes, size: int = 100) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def upload(client: httpx.AsyncClient, content: bytes = FILE.encode(), **query: str) -> httpx.Response:
    query = {"mapping": "stock-list", **query}
    return await client.post("/api/v1/imports", params=query, content=chunks(content))


async def test_a_file_is_the_body_and_the_answer_says_what_became_of_it(
    client: httpx.AsyncClient, runtime: Runtime, context: TenantContext
) -> None:
    answer = await upload(client, gzip.compress(FILE.encode()), file_name="stock of today.csv")
    assert answer.status_code == 201, answer.text
    summary = answer.json()
    run = summary["run"]
    assert (run["state"], run["file_name"], run["created_by"]) == ("done", "stock of today.csv", "tester")
    assert (summary["rows"], run["lines_accepted"], run["lines_refused"]) == (30, 20, 10)
    assert summary["refused_by_code"] == {"quantity-zero": 10}
    assert sum((await books(runtime, context)).by_sku.values()) == run["quantity_sum"] == 30

    assert answer.headers["Location"] == f"/api/v1/imports/{run['id']}"
    assert (await client.get(answer.headers["Location"])).json() == run
    assert (await client.get("/api/v1/imports")).json() == {"items": [run], "next_cursor": None}

    again = await upload(client)
    assert (again.status_code, again.json()["nothing_to_do"]) == (200, True)
    assert (await upload(client, opening_stock="true")).status_code == 409
    assert (await upload(client, opening_stock="true", again="true")).status_code == 201


async def test_refusals_page_by_page_and_by_code(client: httpx.AsyncClient) -> None:
    run = (await upload(client)).json()["run"]["id"]
    found: list[int] = []
    cursor: str | None = None
    while True:
        query: dict[str, str] = {"limit": "4", **({"cursor": cursor} if cursor else {})}
        page = (await client.get(f"/api/v1/imports/{run}/refusals", params=query)).json()
        found += [item["line"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == list(range(2, 32, 3))
    [first, *_] = (await client.get(f"/api/v1/imports/{run}/refusals")).json()["items"]
    assert first == {
        "line": 2,
        "code": "quantity-zero",
        "message": "Line 2 has the quantity 0 and would move nothing.",
        "source": {"sku": "s0", "name": "Product 0", "quantity": "0"},
    }
    none = await client.get(f"/api/v1/imports/{run}/refusals", params={"code": "shortage"})
    assert none.json()["items"] == []


@pytest.mark.parametrize(
    ("content", "query", "status", "code"),
    [
        (b"", {}, 400, "upload-empty"),
        (b"code;amount\n", {}, 400, "import-columns-missing"),
        (gzip.compress(FILE.encode())[:-9], {}, 400, "import-file-unreadable"),
        (FILE.encode(), {"mapping": "nothing-like-it"}, 404, "import-mapping-unknown"),
        (FILE.encode(), {"mapping": "../../secret"}, 422, "invalid-input"),
        (FILE.encode(), {"file_name": "a\nb"}, 422, "invalid-input"),
    ],
)
async def test_what_is_refused_says_why(
    client: httpx.AsyncClient, content: bytes, query: dict[str, str], status: int, code: str
) -> None:
    answer = await upload(client, content, **query)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert (await client.get("/api/v1/imports")).json()["items"] == []


async def test_an_upload_may_be_larger_than_a_document_and_not_larger_than_its_own_limit(
    runtime: Runtime, context: TenantContext
) -> None:
    http = HttpSettings(max_body_bytes=1000, max_upload_bytes=50_000)
    async with (
        second_process(runtime, http=http) as other,
        api_client(create_app(other, ROUTES), other, context) as client,
    ):
        rows = "".join(f"s{n},N,1\n" for n in range(1000))
        assert (await upload(client, f"sku,name,quantity\n{rows}".encode())).status_code == 201
        answer = await upload(client, f"sku,name,quantity\n{rows * 10}".encode())
        assert (answer.status_code, answer.json()["code"]) == (413, "upload-too-large")
        assert answer.json()["limit_bytes"] == 50_000


async def test_whose_import_it_is(
    inventory_app: StrataApp, runtime: Runtime, client: httpx.AsyncClient, context: TenantContext, tenant_on: Tenantry
) -> None:
    run = (await upload(client)).json()["run"]["id"]
    async with api_client(inventory_app, runtime, context, Role.VIEWER) as viewer:
        assert (await viewer.get(f"/api/v1/imports/{run}")).status_code == 200
        assert (await upload(viewer)).status_code == 403
    neighbour = await tenant_on(Tier.SHARED)
    async with api_client(inventory_app, runtime, neighbour) as other:
        assert (await other.get(f"/api/v1/imports/{run}")).status_code == 404
        assert (await other.get(f"/api/v1/imports/{run}/refusals")).status_code == 404
        assert (await other.get("/api/v1/imports")).json()["items"] == []
