"""Requests go on while their tables change under them."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import httpx

from strata.tenancy.context import TenantContext
from strata.tenancy.provisioning.upgrade_report import UpgradePlan
from tests.builders.inventory import stocked
from tests.builders.site import Site, serving
from tests.builders.upgrading import has_column, release, upgrades_to
from tests.integration.tenancy.upgrades.conftest import ADD, COLUMN, Estate

# What a release does to tables in use: columns with and without a default, a constraint in two steps, and a function.
EXPANDS = [
    ADD,
    (
        "ALTER TABLE product ADD COLUMN IF NOT EXISTS colour_code bigint NOT NULL DEFAULT 7;"
        "ALTER TABLE stock_balance ADD COLUMN IF NOT EXISTS colour_note text;"
        "ALTER TABLE movement ADD COLUMN IF NOT EXISTS colour_note text"
    ),
    (
        "ALTER TABLE product ADD CONSTRAINT ck_product_colour CHECK (char_length(colour) < 64) NOT VALID;"
        "ALTER TABLE product VALIDATE CONSTRAINT ck_product_colour;"
        "CREATE INDEX ix_product_colour ON product (tenant_id, colour)"
    ),
]


class Traffic:
    """Everything a shop does, on warm connections with cached statements, until told to stop."""

    def __init__(self, site: Site, tenant: TenantContext, codes: Counter[int], complaints: list[str]) -> None:
        self._client = site.client(tenant)
        self._codes, self._complaints = codes, complaints

    async def run(self, over: asyncio.Event) -> None:
        async with self._client as client:
            while not over.is_set():
                for answer in (
                    await client.get("/api/v1/products", params={"limit": 5}),
                    await client.get("/api/v1/stock", params={"sku": "S-0"}),
                    await client.post("/api/v1/movements", json=_receive()),
                ):
                    self._note(answer)

    def _note(self, answer: httpx.Response) -> None:
        self._codes[answer.status_code] += 1
        if not answer.is_success:
            self._complaints.append(answer.text)


def _receive() -> dict[str, object]:
    return {"kind": "receive", "lines": [{"sku": "S-0", "bin": "B-0", "quantity": 1}]}


async def test_no_request_fails(estate: Estate, tmp_path: Path) -> None:
    """Two clients for each tenant; plans and types that drivers and back ends have cached change under all of them."""
    runtime, tenants = estate.runtime, [estate.shared, estate.dedicated, *estate.schemas[:2]]
    for tenant in tenants:
        await stocked(runtime, tenant, skus=2, bins=2, on_hand=5)
    codes: Counter[int] = Counter()
    complaints: list[str] = []
    over = asyncio.Event()
    async with serving(runtime) as site, asyncio.TaskGroup() as group:
        for tenant in tenants:
            for _ in range(2):
                group.create_task(Traffic(site, tenant, codes, complaints).run(over))
        for number in range(1, len(EXPANDS) + 1):
            await _some_more(codes)
            location = release(tmp_path / str(number), tenant=EXPANDS[:number])
            assert (await upgrades_to(runtime, location).run(UpgradePlan())).complete
        await _some_more(codes)
        over.set()
    assert complaints == []
    assert set(codes) <= {200, 201}
    assert all([await has_column(runtime, tenant, COLUMN) for tenant in tenants])


async def _some_more(codes: Counter[int], requests: int = 40) -> None:
    enough = codes.total() + requests
    async with asyncio.timeout(30):
        while codes.total() < enough:  # noqa: ASYNC110 - counted by others
            await asyncio.sleep(0.01)
