"""`strata up` from nothing, killed, refused, interrupted: as processes of their own, with servers of their own.

Each start makes servers and a platform anew, which takes several seconds; of the quick run is a whole life, with a kill
in it; a dead server is in test_up_worker.
"""

from __future__ import annotations

import asyncio
import json
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

from strata.platform.database import addresses
from strata.platform.database.administration import administrator
from strata.platform.embedded import EmbeddedPostgres, EmbeddedRedis
from tests.builders.command import ended, environment_for, started, up
from tests.builders.platform import _clear, new_platform
from tests.servers import PostgresServer, RedisServer

DEMO = {"acme": "shared", "globex": "schema", "initech": "dedicated"}
GOODS_OF_ACME = 16
QUICKLY_S = 8.0
SLEEP_WHERE_STOCK_MOVES = """
CREATE FUNCTION public.dawdle() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
    $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
CREATE TRIGGER dawdle BEFORE INSERT ON shared.movement FOR EACH ROW EXECUTE FUNCTION public.dawdle();
"""
SLEEPERS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Directly under the folder for such: PostgreSQL's account must get there when the tests run as root."""
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
        assert (set(ready["console"]), set(ready["postgres"]), set(ready["redis"])) == (
            {"url", "token"},
            {"dsn"},
            {"url"},
        )
        before = {tenant["slug"]: await stock_of(tenant) for tenant in ready["tenants"]}
        assert all(len(stock) > 10 and sum(stock.values()) > 1000 for stock in before.values())
        for tenant in ready["tenants"]:
            await receive(tenant, "KEPT-1", 7)

        await a_second_one_is_refused(data_dir)
        await other_commands_work(data_dir)

        assert (await ended(first.process, by=signal.SIGKILL)).code == -signal.SIGKILL

    async with up("--port", "0", data_dir=data_dir) as second:
        ready = await second.until("ready")
        for tenant in ready["tenants"]:
            assert await stock_of(tenant) == before[tenant["slug"]] + Counter({"KEPT-1": 7})
        said = await ended(second.process, by=signal.SIGTERM)
    assert said.code == 0
    assert "Traceback" not in said.err
    assert processes_in(data_dir) == []
    assert not (data_dir / "running.json").exists()


async def other_commands_work(data_dir: Path) -> None:
    """In another terminal, with the same directory and no address given; the one that was refused took none away."""
    words = ("tenant", "create", "hooli", "--tier", "dedicated", "--json", "--data-dir", data_dir)
    async with started(*words, env={}, cwd=data_dir.parent) as process:
        said = await ended(process)
    assert said.code == 0, said.err
    assert (data_dir / "running.json").stat().st_mode & 0o077 == 0
    async with started("doctor", "--json", "--data-dir", data_dir, env={}, cwd=data_dir.parent) as process:
        said = await ended(process)
    assert said.code == 0, said.out
    assert "server server-2" in said.out


@pytest.mark.slow
async def test_servers_that_die_are_started_again(data_dir: Path) -> None:
    async with up("--port", "0", data_dir=data_dir) as living:
        acme = (await living.until("ready"))["tenants"][0]
        announced = (data_dir / "running.json").read_text()
        stock = await stock_of(acme)
        postgres, redis = data_dir / "postgres-1" / "data" / "postmaster.pid", data_dir / "redis" / "redis.pid"
        for victims in ([postgres], [redis], [postgres, redis]):
            before = [first_number_in(victim) for victim in victims]
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(30):
                while not all(  # noqa: ASYNC110 - the event is in another process
                    victim.exists() and first_number_in(victim) != pid
                    for victim, pid in zip(victims, before, strict=True)
                ):
                    await asyncio.sleep(0.05)
                while await refused(acme):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert await stock_of(acme) == stock
            assert zombies_of(living.process.pid) == []
        await receive(acme, "KEPT-2", 7)
        await a_dead_server_is_not_taken_for_a_dead_strata(data_dir, living.process, postgres)
        assert (data_dir / "running.json").read_text() == announced
        said = await ended(living.process, by=signal.SIGTERM)
    assert said.code == 0
    assert "server died; starting it again" in said.err
    assert "server is back" in said.err
    assert processes_in(data_dir) == []
    assert not (data_dir / "running.json").exists()


async def a_dead_server_is_not_taken_for_a_dead_strata(
    data_dir: Path, process: asyncio.subprocess.Process, postmaster: Path
) -> None:
    """Strata itself is held, so that it cannot mend it; asked to stop in the middle of mending, it leaves nothing."""
    process.send_signal(signal.SIGSTOP)
    os.kill(first_number_in(postmaster), signal.SIGKILL)
    async with started("tenant", "list", "--json", "--data-dir", data_dir, env={}, cwd=data_dir.parent) as command:
        said = await ended(command)
    assert (said.code, said.error["code"]) == (1, "postgres-silent")
    assert f"process {process.pid}" in said.error["detail"]
    process.send_signal(signal.SIGCONT)
    # Long enough for it to see, and to be starting.
    await asyncio.sleep(0.55)


@pytest.mark.slow
async def test_a_server_that_cannot_be_kept_alive_ends_it(data_dir: Path) -> None:
    async with up("--port", "0", "--no-demo", data_dir=data_dir) as doomed:
        await doomed.until("ready")
        data = data_dir / "postgres-1" / "data"
        (data / "PG_VERSION").write_text("9\n")
        os.kill(first_number_in(data / "postmaster.pid"), signal.SIGKILL)
        said = await ended(doomed.process)
    assert (said.code, said.error["code"]) == (1, "server-keeps-dying")
    assert "postgres-1" in said.error["detail"]
    assert said.err.count("server died") == 5
    # What is logged meanwhile (a sweep in vain) is on lines of its own form; it does not die of an exception.
    assert all(line.startswith("{") for line in said.err.splitlines())
    assert processes_in(data_dir) == []
    assert not (data_dir / "running.json").exists()


def first_number_in(file: Path) -> int:
    """0 while it is being written."""
    try:
        return int(file.read_text().split()[0])
    except (FileNotFoundError, IndexError):
        return 0


async def refused(tenant: dict[str, Any]) -> bool:
    async with client_for(tenant) as client:
        return (await client.get("/api/v1/stock")).status_code == 503


def zombies_of(pid: int) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                found += [entry.name] if (state, parent) == ("Z", str(pid)) else []
        except OSError:
            continue
    return found


async def a_second_one_is_refused(data_dir: Path) -> None:
    async with up("--port", "0", data_dir=data_dir) as other:
        said = await ended(other.process)
    assert said.code == 1
    assert said.out == ""
    assert said.error["code"] == "configuration"
    assert str(data_dir) in said.error["detail"]


@pytest.mark.slow
async def test_killed_while_it_seeds_it_finishes_the_next_time(data_dir: Path) -> None:
    async with up("--port", "0", "--no-demo", data_dir=data_dir) as bare:
        ready = await bare.until("ready")
        assert ready["tenants"] == []
        async with cell_of(ready["postgres"]["dsn"]) as admin:
            await admin.execute(SLEEP_WHERE_STOCK_MOVES)
        assert (await ended(bare.process, by=signal.SIGINT)).code == 0
    async with up("--port", "0", data_dir=data_dir) as killed:
        await killed.until("progress", step="stock")
        address = json.loads((data_dir / "running.json").read_text())["database_url"]
        async with cell_of(address) as admin:
            while not await admin.fetchval(SLEEPERS):  # noqa: ASYNC110 - the event is in PostgreSQL
                await asyncio.sleep(0.02)
            await ended(killed.process, by=signal.SIGKILL)
            # The server has outlived its Strata; the statement would, too.
            await admin.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
            assert await admin.fetchval("SELECT count(*) FROM shared.product") == 0
            await admin.execute("DROP FUNCTION public.dawdle() CASCADE")
    async with up("--port", "0", data_dir=data_dir) as unhindered:
        acme = next(tenant for tenant in (await unhindered.until("ready"))["tenants"] if tenant["slug"] == "acme")
        async with client_for(acme) as client:
            receipts = (await client.get("/api/v1/movements", params={"limit": "200", "kind": "receive"})).json()
        assert len(receipts["items"]) == len(await stock_of(acme)) == GOODS_OF_ACME


@pytest.mark.slow
async def test_stopped_while_it_sets_up_it_leaves_nothing_running(data_dir: Path) -> None:
    async with up("--port", "0", data_dir=data_dir) as early:
        await early.until("progress", step="servers")
        assert (await ended(early.process, by=signal.SIGTERM)).code == 0
    assert processes_in(data_dir) == []
    async with up("--port", "0", data_dir=data_dir) as later:
        await later.until("progress", step="tenants")
        assert (await ended(later.process, by=signal.SIGINT)).code == 0
    assert processes_in(data_dir) == []
    # Somebody took PostgreSQL's port meanwhile: the catalog learns the new one.
    port = int((data_dir / "postgres-1" / "port").read_text())
    async with up("--port", "0", data_dir=data_dir) as unhindered:
        with socket.create_server(("127.0.0.1", port)):
            ready = await unhindered.until("ready")
        assert addresses.parse(ready["postgres"]["dsn"]).port != port
        assert {tenant["slug"] for tenant in ready["tenants"]} == set(DEMO)
        await a_request_that_never_ends(ready["tenants"][0], unhindered.process)
    assert processes_in(data_dir) == []


async def a_request_that_never_ends(tenant: dict[str, Any], process: asyncio.subprocess.Process) -> None:
    """The first Ctrl-C waits for it, for a while; the second does not."""
    url = httpx.URL(tenant["url"])
    reader, writer = await asyncio.open_connection("127.0.0.1", url.port)
    head = f"POST /api/v1/movements HTTP/1.1\r\nHost: {url.netloc.decode()}\r\nAuthorization: Bearer {tenant['token']}"
    writer.write(f"{head}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
    await writer.drain()
    await asyncio.sleep(0.3)
    process.send_signal(signal.SIGINT)
    await asyncio.sleep(0.5)
    assert process.returncode is None
    asked = time.monotonic()
    assert (await ended(process, by=signal.SIGINT)).code == 0
    assert time.monotonic() - asked < QUICKLY_S
    writer.close()
    del reader


async def test_a_busy_port_is_told_before_anything_starts(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with up("--port", str(taken.getsockname()[1]), data_dir=data_dir) as refused:
            said = await ended(refused.process)
    assert (said.code, said.error["code"], said.out) == (1, "port-busy", "")
    assert "--port" in said.error["detail"]
    assert not (data_dir / "postgres-1" / "data").exists()


@pytest.mark.slow
async def test_servers_that_are_named_are_used(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    platform = new_platform(postgres_server, second_postgres_server, redis_server, tmp_path / "data")
    env = environment_for(platform)
    try:
        async with up("--port", "0", data_dir=platform.data_dir, env=env) as named:
            ready = await named.until("ready")
            assert ready["postgres"]["dsn"] == env["STRATA_DATABASE_URL"]
            assert ready["redis"]["url"] == env["STRATA_REDIS_URL"]
            for tenant in ready["tenants"]:
                assert await stock_of(tenant)
            assert (await ended(named.process, by=signal.SIGTERM)).code == 0
        assert {path.name for path in platform.data_dir.iterdir()} == {"keys"}
        await people_are_shown_addresses_and_tokens(platform.data_dir, env)
        async with up("--servers", "2", "--port", "0", data_dir=platform.data_dir, env=env) as refused:
            said = await ended(refused.process)
        assert (said.code, said.error["code"]) == (1, "configuration")
    finally:
        await _clear(postgres_server, platform.prefix)


async def people_are_shown_addresses_and_tokens(data_dir: Path, env: dict[str, str]) -> None:
    async with started("up", "--port", "0", "--data-dir", data_dir, env=env, cwd=data_dir.parent) as process:
        assert process.stdout is not None
        shown = ""
        while "console (staff)" not in shown:
            line = await process.stdout.readline()
            assert line
            shown += line.decode()
        token = (await process.stdout.readline()).decode().strip()
        said = await ended(process, by=signal.SIGINT)
    assert said.code == 0
    assert "✓ Starting PostgreSQL and Redis" in shown
    assert all(f"http://{slug}.localhost:" in shown for slug in DEMO)
    assert token.count(".") == 2


@asynccontextmanager
async def cell_of(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    async with administrator(addresses.parse(dsn).set(database="strata_cell_1")) as admin:
        yield admin
