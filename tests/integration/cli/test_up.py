"""`strata up` from nothing, killed, refused, interrupted: as processes of their own, with servers of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from strata.platform.database.administration import administrator
from strata.platform.database import addresses
from strata.platform.embedded import EmbeddedPostgres, EmbeddedRedis
from tests.builders.command import Up, clean_environment, ended, environment_for, started, up
from tests.builders.platform import _clear, new_platform
from tests.servers import PostgresServer, RedisServer

DEMO = {"acme": "shared", "globex": "schema", "initech": "dedicated"}
QUICKLY_S = 8.0


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Directly under /tmp: PostgreSQL's account must get there when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="strata-up-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "data"
        path.parent.chmod(0o711)
        yield path
        for server in (EmbeddedPostgres(path, "postgres-1"), EmbeddedPostgres(path, "postgres-2"), EmbeddedRedis(path)):
            server.stop_orphan()


def processes_in(directory: Path) -> list[str]:
    """What runs with its working directory inside: every embedded server does."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(directory):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def client_for(tenant: dict[str, Any]) -> httpx.AsyncClient:
    """By address, with the tenant's Host: not every resolver knows *.localhost."""
    url = httpx.URL(tenant["url"])
    headers = {"Host": url.netloc.decode(), "Authorization": f"Bearer {tenant['token']}"}
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{url.port}", headers=headers)


async def stock_of(tenant: dict[str, Any]) -> Counter[str]:
    """On hand by SKU, over all pages."""
    stock: Counter[str] = Counter()
    async with client_for(tenant) as client:
        cursor: str | None = None
        while True:
            parameters = {"limit": "200", **({"cursor": cursor} if cursor else {})}
            page = (await client.get("/api/v1/stock", params=parameters)).raise_for_status().json()
            for item in page["items"]:
                stock[item["sku"]] += item["on_hand"]
            cursor = page["next_cursor"]
            if not cursor:
                return stock


async def receive(tenant: dict[str, Any], sku: str, quantity: int) -> None:
    async with client_for(tenant) as client:
        [place] = (await client.get("/api/v1/bins", params={"limit": "1"})).raise_for_status().json()["items"]
        await client.post("/api/v1/products", json={"sku": sku, "name": sku})
        line = {"sku": sku, "bin": place["code"], "quantity": quantity}
        answer = await client.post("/api/v1/movements", json={"kind": "receive", "lines": [line]})
        assert answer.status_code == 201, answer.text


async def test_a_life(data_dir: Path) -> None:
    """Two servers, three tenants, other commands beside it; killed, started again, stopped."""
    async with up("--port", "0", "--servers", "2", data_dir=data_dir) as first:
        ready = await first.until("ready")
        assert {event["event"] for event in first.events[:-1]} == {"progress"}
        assert set(ready) == {"event", "tenants", "console", "postgres", "redis"}
        assert {tenant["slug"]: tenant["tier"] for tenant in ready["tenants"]} == DEMO
        assert all(set(tenant) == {"slug", "tier", "url", "token"} for tenant in ready["tenants"])
        assert (set(ready["console"]), set(ready["postgres"]), set(ready["redis"])) == ({"url", "token"}, {"dsn"}, {"url"})
        before = {tenant["slug"]: await stock_of(tenant) for tenant in ready["tenants"]}
        assert all(len(stock) > 10 and sum(stock.values()) > 1000 for stock in before.values())
        for tenant in ready["tenants"]:
            await receive(tenant, "KEPT-1", 7)

        await other_commands_work(data_dir)
        await a_second_one_is_refused(data_dir)

        assert (await ended(first.process, by=signal.SIGKILL)).code == -signal.SIGKILL

    async with up("--port", "0", data_dir=data_dir) as second:
        ready = await second.until("ready")
        for tenant in ready["tenants"]:
            assert await stock_of(tenant) == before[tenant["slug"]] + Counter({"KEPT-1": 7})
        async with started("server", "list", "--json", "--data-dir", data_dir, env={}, cwd=data_dir.parent) as listing:
            assert "server-2" in (await ended(listing)).out
        said = await ended(second.process, by=signal.SIGTERM)
    assert said.code == 0
    assert "Traceback" not in said.err
    assert processes_in(data_dir) == []
    assert not (data_dir / "running.json").exists()


async def other_commands_work(data_dir: Path) -> None:
    """In another terminal, with the same directory and no address given."""
    words = ("tenant", "create", "hooli", "--tier", "dedicated", "--json", "--data-dir", data_dir)
    async with started(*words, env={}, cwd=data_dir.parent) as process:
        said = await ended(process)
    assert said.code == 0, said.err
    assert (data_dir / "running.json").stat().st_mode & 0o077 == 0
    async with started("doctor", "--json", "--data-dir", data_dir, env={}, cwd=data_dir.parent) as process:
        said = await ended(process)
    assert said.code == 0, said.out


async def a_second_one_is_refused(data_dir: Path) -> None:
    async with up("--port", "0", data_dir=data_dir) as other:
        said = await ended(other.process)
    assert said.code == 1
    assert said.out == ""
    assert said.error["code"] == "configuration"
    assert str(data_dir) in said.error["detail"]
    # And has not taken the first one's address away.
    async with started("tenant", "list", "--data-dir", data_dir, env={}, cwd=data_dir.parent) as process:
        assert (await ended(process)).code == 0


async def test_killed_while_it_seeds_it_finishes_the_next_time(data_dir: Path) -> None:
    async with up("--port", "0", "--no-demo", data_dir=data_dir) as bare:
        assert (await bare.until("ready"))["tenants"] == []
        await pause_whoever_moves_stock(bare.events[-1]["postgres"]["dsn"])
        assert (await ended(bare.process, by=signal.SIGINT)).code == 0
    async with up("--port", "0", data_dir=data_dir) as killed:
        await killed.until("progress", step="stock")
        async with administrator(addresses.parse(running(data_dir))) as admin:
            while not await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
                await asyncio.sleep(0.02)
        await ended(killed.process, by=signal.SIGKILL)
    async with up("--port", "0", data_dir=data_dir) as unhindered:
        # The server of before is stopped and started, so the sleeper is gone; the trigger has had its turn.
        ready = await unhindered.until("ready")
        acme = next(tenant for tenant in ready["tenants"] if tenant["slug"] == "acme")
        stock = await stock_of(acme)
        assert len(stock) == 16
        async with client_for(acme) as client:
            answer = await client.get("/api/v1/movements", params={"limit": "200", "kind": "receive"})
            assert len(answer.json()["items"]) == 16


def running(data_dir: Path) -> str:
    import json

    address: str = json.loads((data_dir / "running.json").read_text())["database_url"]
    return address
