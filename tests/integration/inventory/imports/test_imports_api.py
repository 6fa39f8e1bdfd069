from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text

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
from tests.builders.queued_imports import importing, seen, upload

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


@pytest.fixture
async def workers(runtime: Runtime) -> AsyncIterator[None]:
    async with importing(runtime):
        yield


async def imported(client: httpx.AsyncClient, content: bytes = FILE.encode(), **query: str) -> dict[str, Any]:
    answer = await upload(client, content, **query)
    assert answer.status_code == 202, answer.text
    return await seen(client, answer.headers["Location"])


@pytest.mark.usefixtures("workers")
async def test_a_file_is_the_body_and_the_location_says_what_becomes_of_it(
    client: httpx.AsyncClient, runtime: Runtime, context: TenantContext
) -> None:
    answer = await upload(client, gzip.compress(FILE.encode()), file_name="stock of today.csv")
    assert answer.status_code == 202, answer.text
    accepted = answer.json()
    assert (accepted["state"], accepted["queued"], accepted["rows_total"]) == ("pending", True, None)
    assert answer.headers["Location"] == f"/api/v1/imports/{accepted['id']}"

    run = await seen(client, answer.headers["Location"])
    assert (run["state"], run["file_name"], run["created_by"]) == ("done", "stock of today.csv", "tester")
    assert (run["rows_total"], run["rows_read"], run["lines_accepted"], run["lines_refused"]) == (30, 30, 20, 10)
    assert sum((await books(runtime, context)).by_sku.values()) == run["quantity_sum"] == 30
    assert (await client.get("/api/v1/imports")).json() == {"items": [run], "next_cursor": None}
    some = await client.get(answer.headers["Location"], params={"fields": "state,rows_read"})
    assert some.json() == {"state": "done", "rows_read": 30}
    assert await left_over(runtime, context) == (0, 0)

    again = await upload(client, FILE.encode())
    assert (again.status_code, again.json()) == (200, run)
    assert (await upload(client, FILE.encode(), opening_stock="true")).status_code == 409
    assert (await imported(client, opening_stock="true", again="true"))["state"] == "done"


async def left_over(runtime: Runtime, context: TenantContext) -> tuple[int, int]:
    """Chunks and batches that the tenant still has."""
    async with runtime.tenants.reading(context) as session:
        chunks = await session.scalar(text("SELECT count(*) FROM import_chunk"))
        batches = await session.scalar(text("SELECT count(*) FROM import_batch"))
    return int(chunks or 0), int(batches or 0)


async def test_the_same_upload_twice_is_one_import(
    client: httpx.AsyncClient, runtime: Runtime, context: TenantContext
) -> None:
    first = await upload(client, FILE.encode(), key="a")
    replayed = await upload(client, gzip.compress(FILE.encode()), key="a")
    assert (replayed.status_code, replayed.json()) == (202, first.json())
    assert replayed.headers["Idempotency-Replayed"] == "true"
    without = await upload(client, FILE.encode())
    assert (without.status_code, without.json()["id"]) == (202, first.json()["id"])
    other = await upload(client, FILE.encode() + b"x,X,1\n", key="a")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency-conflict")
    async with importing(runtime):
        run = await seen(client, first.headers["Location"])
    assert run["lines_accepted"] == 20
    assert (await client.get("/api/v1/imports")).json()["items"] == [run]
    assert sum((await books(runtime, context)).by_sku.values()) == 30


@pytest.mark.usefixtures("workers")
async def test_refusals_page_by_page_and_by_code(client: httpx.AsyncClient) -> None:
    run = (await imported(client))["id"]
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


async def test_a_parameter_that_is_missing_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/imports", content=FILE.encode())
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-input")
    assert answer.json()["errors"] == [{"path": "/mapping", "message": "is required", "in": "query"}]
    assert answer.json()["detail"] == "Mend and send again: /mapping: is required."


async def test_a_small_file_that_unpacks_to_more_than_it_may_is_refused(
    runtime: Runtime, context: TenantContext
) -> None:
    async with (
        second_process(runtime, http=HttpSettings(max_unpacked_bytes=100_000)) as other,
        api_client(create_app(other, ROUTES), other, context) as client,
    ):
        bomb = gzip.compress(b"sku,name,quantity\n" + b"s,N,1\n" * 100_000)
        answer = await upload(client, bomb)
        assert (answer.status_code, answer.json()["code"]) == (413, "upload-too-large-unpacked")
        assert answer.json()["limit_bytes"] == 100_000


async def test_an_upload_may_be_larger_than_a_document_and_not_larger_than_its_own_limit(
    runtime: Runtime, context: TenantContext
) -> None:
    http = HttpSettings(max_body_bytes=1000, max_upload_bytes=50_000)
    async with (
        second_process(runtime, http=http) as other,
        api_client(create_app(other, ROUTES), other, context) as client,
    ):
        rows = "".join(f"s{n},N,1\n" for n in range(1000))
        assert (await upload(client, f"sku,name,quantity\n{rows}".encode())).status_code == 202
        answer = await upload(client, f"sku,name,quantity\n{rows * 10}".encode())
        assert (answer.status_code, answer.json()["code"]) == (413, "upload-too-large")
        assert answer.json()["limit_bytes"] == 50_000


async def test_whose_import_it_is(
    inventory_app: StrataApp, runtime: Runtime, client: httpx.AsyncClient, context: TenantContext, tenant_on: Tenantry
) -> None:
    run = (await upload(client, FILE.encode())).json()["id"]
    async with api_client(inventory_app, runtime, context, Role.VIEWER) as viewer:
        assert (await viewer.get(f"/api/v1/imports/{run}")).status_code == 200
        assert (await upload(viewer, FILE.encode())).status_code == 403
        assert (await viewer.post(f"/api/v1/imports/{run}/cancel")).status_code == 403
    neighbour = await tenant_on(Tier.SHARED)
    async with api_client(inventory_app, runtime, neighbour) as other:
        assert (await other.get(f"/api/v1/imports/{run}")).status_code == 404
        assert (await other.get(f"/api/v1/imports/{run}/refusals")).status_code == 404
        assert (await other.post(f"/api/v1/imports/{run}/cancel")).status_code == 404
        assert (await other.post(f"/api/v1/imports/{run}/resume")).status_code == 404
        assert (await other.get("/api/v1/imports")).json()["items"] == []
