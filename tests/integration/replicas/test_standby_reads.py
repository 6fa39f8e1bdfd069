"""HTTP requests over a cell with a standby that is paused, killed, and dies under a read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from strata.routing.resolve import SESSION_COOKIE
from strata.routing.standby_reads import WROTE_COOKIE
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from strata.tenancy.replicas.lease import OVER_AFTER_S
from tests.builders.platform import SECOND_CELL, Tenantry, admin_of
from tests.builders.site import Site, serving
from tests.builders.standbys import Replicated

POSITION = "Strata-Position"
SOON_S = 15


@pytest.fixture(scope="session")
async def replicated_site(replicated: Replicated) -> AsyncIterator[Site]:
    async with serving(replicated.runtime) as site:
        yield site


class Reader:
    """A client with a bearer token that keeps its position, or does not."""

    def __init__(self, client: httpx.AsyncClient, position: str | None = "0") -> None:
        self._client = client
        self.position = position

    def _headers(self) -> dict[str, str]:
        return {} if self.position is None else {POSITION: self.position}

    async def skus(self) -> list[str]:
        answer = await self._client.get("/api/v1/products", headers=self._headers())
        assert answer.status_code == 200, answer.text
        return [item["sku"] for item in answer.json()["items"]]

    async def add(self, sku: str) -> None:
        answer = await self._client.post("/api/v1/products", json={"sku": sku, "name": sku}, headers=self._headers())
        assert answer.status_code == 201, answer.text
        assert (POSITION in answer.headers) is (self.position is not None)
        self.position = answer.headers.get(POSITION)


async def is_read_from_standby(replicated: Replicated, site: Site, tenant: TenantContext) -> None:
    """Returns when reads of clients that have written nothing have come to go to the standby."""
    async with site.client(tenant) as client, asyncio.timeout(SOON_S):
        reader = Reader(client)
        before = await transactions_on_standby(replicated)
        while await transactions_on_standby(replicated) < before + 3:
            await reader.skus()
            await asyncio.sleep(0.02)


async def transactions_on_standby(replicated: Replicated) -> int:
    """Of the application: how often its connections there were told to enter."""
    choice = replicated.runtime.tenants._standbys
    assert choice is not None
    return sum(standby.entered for watch in choice._watches.values() for standby in watch.standbys.values())


async def test_a_client_always_sees_its_own_writes_and_others_come_late_at_most(
    replicated: Replicated, replicated_site: Site, replicated_tenant: Tenantry
) -> None:
    tenant = await replicated_tenant(Tier.SHARED, cell=SECOND_CELL)
    async with replicated_site.client(tenant) as client:
        writer, other, keeps_nothing = Reader(client), Reader(client), Reader(client, None)
        await writer.add("a")
        await is_read_from_standby(replicated, replicated_site, tenant)
        async with replicated.paused():
            await writer.add("b")
            assert await writer.skus() == ["a", "b"]
            assert await keeps_nothing.skus() == ["a", "b"]
            assert await other.skus() == ["a"], "from the standby, which has stopped"
            await keeps_nothing.add("c")
            assert await keeps_nothing.skus() == ["a", "b", "c"]
            # It shuts by itself when its lease is over.
            async with asyncio.timeout(OVER_AFTER_S + 3):
                while await other.skus() != ["a", "b", "c"]:  # noqa: ASYNC110 - the event is in PostgreSQL
                    await asyncio.sleep(0.1)
        await is_read_from_standby(replicated, replicated_site, tenant)
        before = await transactions_on_standby(replicated)
        assert await writer.skus() == ["a", "b", "c"]
        assert await transactions_on_standby(replicated) > before, "it has caught up with this client's write"
        assert await Reader(client, "1.forged").skus() == ["a", "b", "c"]
        assert await Reader(client, "unknown").skus() == ["a", "b", "c"]


async def test_a_browser_reads_from_the_primary_after_a_change(
    replicated: Replicated, replicated_site: Site, replicated_tenant: Tenantry
) -> None:
    tenant = await replicated_tenant(Tier.SCHEMA, cell=SECOND_CELL)
    site = replicated_site
    await is_read_from_standby(replicated, site, tenant)
    headers = {"Host": f"{tenant.slug}.localhost", "Sec-Fetch-Site": "same-origin"}
    cookies = {SESSION_COOKIE: site.token(tenant)}
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.port}", headers=headers, cookies=cookies) as browser,
        replicated.paused(),
    ):
        answer = await browser.post("/api/v1/products", json={"sku": "a", "name": "a"})
        assert answer.status_code == 201, answer.text
        assert f"{WROTE_COOKIE}=1" in answer.headers["set-cookie"]
        items = (await browser.get("/api/v1/products")).json()["items"]
        assert [item["sku"] for item in items] == ["a"]
        browser.cookies.delete(WROTE_COOKIE)
        assert (await browser.get("/api/v1/products")).json()["items"] == [], "as it would be after the cookie's time"


async def test_nothing_is_read_from_a_standby_after_the_cut_over(
    replicated: Replicated, replicated_site: Site, replicated_tenant: Tenantry
) -> None:
    """As far as this cell sees it: closed, then at another epoch. The process asked here hears of neither."""
    tenant = await replicated_tenant(Tier.SHARED, cell=SECOND_CELL)
    await is_read_from_standby(replicated, replicated_site, tenant)
    async with (
        replicated.paused(),
        replicated_site.client(tenant) as client,
        admin_of(replicated.runtime, SECOND_CELL) as admin,
    ):
        await admin.execute("UPDATE strata.fence SET standby_closed_epoch = epoch WHERE tenant_id = $1", tenant.id)
        await asyncio.sleep(OVER_AFTER_S)
        before = await transactions_on_standby(replicated)
        for _ in range(20):
            await Reader(client).skus()
        assert await transactions_on_standby(replicated) == before


@asynccontextmanager
async def reading_all_the_time(site: Site, tenant: TenantContext) -> AsyncIterator[list[int]]:
    statuses: list[int] = []

    async def read() -> None:
        async with site.client(tenant) as client:
            while True:
                answer = await client.get("/api/v1/stock", headers={POSITION: "0"})
                statuses.append(answer.status_code)

    tasks = [asyncio.create_task(read()) for _ in range(4)]
    try:
        yield statuses
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes


async def test_no_request_fails_when_the_standby_is_killed_and_comes_back(
    replicated: Replicated, replicated_site: Site, replicated_tenant: Tenantry
) -> None:
    tenant = await replicated_tenant(Tier.SHARED, cell=SECOND_CELL)
    await is_read_from_standby(replicated, replicated_site, tenant)
    async with reading_all_the_time(replicated_site, tenant) as statuses:
        await asyncio.sleep(0.5)
        assert replicated.standby.pid is not None
        os.kill(replicated.standby.pid, signal.SIGKILL)
        await asyncio.sleep(2.5)
        await asyncio.to_thread(replicated.standby.start)
        await is_read_from_standby(replicated, replicated_site, tenant)
    assert len(statuses) > 50
    assert set(statuses) == {200}


@asynccontextmanager
async def standing_still(replicated: Replicated) -> AsyncIterator[None]:
    async with replicated.on_standby() as there:
        pids = [
            row["pid"] for row in await there.fetch("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        ]
    try:
        signal_all([replicated.standby.pid or 0, *pids], signal.SIGSTOP)
        yield
    finally:
        signal_all([*pids, replicated.standby.pid or 0], signal.SIGCONT)


def signal_all(pids: list[int], what: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


@pytest.mark.slow
async def test_a_standby_that_hangs_under_reads_is_left_for_the_primary(
    replicated: Replicated, replicated_site: Site, replicated_tenant: Tenantry
) -> None:
    """As a machine that has lost its network: it neither answers nor closes anything."""
    tenant = await replicated_tenant(Tier.SHARED, cell=SECOND_CELL)
    await is_read_from_standby(replicated, replicated_site, tenant)
    async with reading_all_the_time(replicated_site, tenant) as statuses:
        await asyncio.sleep(0.3)
        async with standing_still(replicated):
            await asyncio.sleep(3.0)
            served = len(statuses)
            await asyncio.sleep(0.5)
            assert len(statuses) > served, "nobody waits for it any more"
        await is_read_from_standby(replicated, replicated_site, tenant)
    assert set(statuses) == {200}
