"""Expand, then contract: the code of the release before works on the schemas of this one, on every tier."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from strata.identity.roles import Role
from strata.identity.tokens import tenant_token
from strata.tenancy.context import TenantContext
from tests.builders.command import clean_environment, environment_for
from tests.builders.inventory import stocked
from tests.builders.previous_release import check_out, previous_release, serving_release
from tests.integration.tenancy.upgrades.conftest import Estate

PREVIOUS = previous_release()
pytestmark = pytest.mark.skipif(PREVIOUS is None, reason="no git history to take the release before from")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert PREVIOUS is not None
    return check_out(PREVIOUS, tmp_path_factory.mktemp("previous"))


async def works(client: httpx.AsyncClient) -> None:
    """What a shop does in a day; each answer is one of success."""
    made = await client.post("/api/v1/products", json={"sku": "OLD-GOODS", "name": "Made by the release before"})
    assert made.status_code == 201, made.text
    listed = await client.get("/api/v1/products", params={"limit": 50})
    assert "OLD-GOODS" in {item["sku"] for item in listed.json()["items"]}
    for kind, quantity in (("receive", 9), ("pick", 2), ("adjust", -1)):
        line = {"sku": "OLD-GOODS", "bin": "OLD-B-0", "quantity": quantity}
        moved = await client.post("/api/v1/movements", json={"kind": kind, "lines": [line], "reason": "test"})
        assert moved.status_code == 201, moved.text
    line = {"sku": "OLD-GOODS", "bin": "OLD-B-0", "to_bin": "OLD-B-1", "quantity": 3}
    moved = await client.post("/api/v1/movements", json={"kind": "transfer", "lines": [line]})
    assert moved.status_code == 201, moved.text
    stock = await client.get("/api/v1/stock", params={"sku": "OLD-GOODS"})
    assert {item["bin"]: item["on_hand"] for item in stock.json()["items"]} == {"OLD-B-0": 3, "OLD-B-1": 3}
    assert (await client.get("/api/v1/movements", params={"limit": 5})).status_code == 200
    assert (await client.get("/api/v1/bins")).status_code == 200


async def test_it_serves_every_tier(estate: Estate, tree: Path) -> None:
    tenants = [estate.shared, estate.dedicated, estate.schemas[0]]
    for tenant in tenants:
        await stocked(estate.runtime, tenant, skus=1, bins=2, prefix="OLD-")
    async with serving_release(tree, estate.platform) as port:
        for tenant in tenants:
            async with client_of(estate, tenant, port) as client:
                await works(client)


def client_of(estate: Estate, tenant: TenantContext, port: int) -> httpx.AsyncClient:
    token = tenant_token(estate.runtime.tokens, tenant.id, Role.ADMINISTRATOR, subject="robin")
    headers = {"Host": f"{tenant.slug}.localhost", "Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30)


@pytest.mark.slow
async def test_a_command_of_it_works_too(estate: Estate, tree: Path) -> None:
    """It reads and writes the catalog: creates a tenant, lists them."""
    slug = "before"
    for words in (
        ("tenant", "create", slug, "--tier", "shared"),
        ("tenant", "list"),
        ("tenant", "delete", slug, "--yes"),
    ):
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "strata", *words],
            cwd=tree,
            env=clean_environment({**environment_for(estate.platform), "PYTHONPATH": str(tree)}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
