"""A list costs one query, however long it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, Engine, event

from strata.app import StrataApp
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.inventory import api_client, stocked
from tests.builders.platform import Tenantry

LISTS = ("products", "warehouses", "zones", "bins", "stock", "movements", "ledger")


@contextmanager
def counted(runtime: Runtime) -> Iterator[list[str]]:
    """The statements that go to cells. What the process asks the catalog now and then is no part of a request."""
    statements: list[str] = []

    def note(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if connection.engine is not runtime.catalog_engine.sync_engine:
            statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@pytest.mark.parametrize("name", LISTS)
async def test_a_list_is_one_query(runtime: Runtime, inventory_app: StrataApp, tenant_on: Tenantry, name: str) -> None:
    context = await tenant_on(Tier.SHARED)
    async with api_client(inventory_app, runtime, context) as api:
        for times in range(1, 3):
            await stocked(runtime, context, skus=10 * times, bins=2, on_hand=1, prefix=f"{times}-")
            with counted(runtime) as statements:
                page = await api.get(f"/api/v1/{name}", params={"limit": 25})
            assert page.json()["items"]
            assert len(statements) == 1, statements


async def test_one_product_and_one_movement_cost_one_statement_each(
    runtime: Runtime, inventory_app: StrataApp, tenant_on: Tenantry
) -> None:
    context = await tenant_on(Tier.SHARED)
    await stocked(runtime, context, on_hand=10)
    lines = [{"sku": "S-0", "bin": "B-0", "quantity": 1}, {"sku": "S-1", "bin": "B-1", "quantity": 1}]
    async with api_client(inventory_app, runtime, context) as api:
        with counted(runtime) as statements:
            await api.get("/api/v1/products/by-sku/S-0")
        assert len(statements) == 1
        with counted(runtime) as statements:
            posted = await api.post(
                "/api/v1/movements", json={"kind": "pick", "lines": lines}, headers={"Idempotency-Key": "k"}
            )
        assert posted.status_code == 201
        assert len(statements) == 1
