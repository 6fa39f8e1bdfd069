"""`strata up --servers 2`, and either server killed while requests run: who notices what."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from strata.platform.embedded import EmbeddedPostgres, EmbeddedRedis
from tests.builders.command import ended, started, up

RECOVERS_WITHIN_S = 30.0


class Answer(msgspec.Struct, frozen=True):
    status: int
    retry_after: str | None
    code: str | None


class Caller:
    """Asks for a tenant's stock, again and again, and writes now and then."""

    def __init__(self, tenant: dict[str, Any]) -> None:
        self.answers: list[Answer] = []
        self.slug = tenant["slug"]
        url = httpx.URL(tenant["url"])
        headers = {"Host": url.netloc.decode(), "Authorization": f"Bearer {tenant['token']}"}
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{url.port}", headers=headers, timeout=20)

    async def run(self) -> None:
        async with self._client as client:
            for turn in range(1_000_000):
                if turn % 5:
                    answer = await client.get("/api/v1/stock", params={"limit": "5"})
                else:
                    answer = await client.post("/api/v1/products", json={"sku": f"N{turn}", "name": "new"})
                problem = answer.json() if answer.headers["content-type"] == "application/problem+json" else {}
                self.answers.append(Answer(answer.status_code, answer.headers.get("retry-after"), problem.get("code")))
                await asyncio.sleep(0.005)

    async def served_again(self) -> None:
        """Several answers in a row, from now on, are good ones."""
        since = len(self.answers)
        async with asyncio.timeout(RECOVERS_WITHIN_S):
            while len(self.answers) < since + 10 or any(answer.status >= 500 for answer in self.answers[-10:]):  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@asynccontextmanager
async def calling(*tenants: dict[str, Any]) -> AsyncIterator[list[Caller]]:
    callers = [Caller(tenant) for tenant in tenants]
    tasks = [asyncio.create_task(caller.run()) for caller in callers]
    try:
        yield callers
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes


@pytest.fixture
def two_servers_dir() -> Iterator[Path]:
    """Directly under /tmp: PostgreSQL's account must get there when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="strata-two-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "data"
        path.parent.chmod(0o711)
        yield path
        for server in (EmbeddedPostgres(path, "postgres-1"), EmbeddedPostgres(path, "postgres-2"), EmbeddedRedis(path)):
            server.stop_orphan()


def kill(data_dir: Path, server: str) -> None:
    os.kill(int((data_dir / server / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)


@pytest.mark.slow
async def test_either_server_killed_under_requests(two_servers_dir: Path) -> None:
    async with up("--port", "0", "--servers", "2", data_dir=two_servers_dir) as living:
        ready = await living.until("ready")
        tenants = {tenant["slug"]: tenant for tenant in ready["tenants"]}
        async with calling(tenants["acme"], tenants["globex"]) as (on_first, on_second):
            await asyncio.gather(on_first.served_again(), on_second.served_again())
            # The second holds globex alone; the first holds acme, and the catalog of both.
            for server, killed, other in (
                ("postgres-2", on_second, on_first),
                ("postgres-1", on_first, on_second),
            ):
                before, others = len(killed.answers), len(other.answers)
                kill(two_servers_dir, server)
                async with asyncio.timeout(RECOVERS_WITHIN_S):
                    while all(answer.status < 500 for answer in killed.answers[before:]):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                await killed.served_again()
                await other.served_again()
                refused = [answer for answer in killed.answers[before:] if answer.status >= 500]
                assert {(answer.status, answer.retry_after is not None) for answer in refused} == {(503, True)}, refused
                assert None not in {answer.code for answer in refused}
                assert {answer.status for answer in other.answers[others:]} <= {200, 201, 409}
        await a_drain_has_a_plan(two_servers_dir)
        said = await ended(living.process, by=signal.SIGTERM)
    assert said.code == 0
    assert "Traceback" not in said.err


async def a_drain_has_a_plan(data_dir: Path) -> None:
    for option in ("--plan-only", "--show"):
        words = ("server", "drain", "server-2", option)
        async with started(*words, "--json", "--data-dir", data_dir, env={}, cwd=data_dir.parent) as process:
            said = await ended(process)
        assert said.code == 0, said.err
        [move] = said.document["plan"]["moves"]
        assert (move["slug"], move["to_server"], move["to_cell"]) == ("globex", "server-1", "cell-1")
        assert "the emptiest with room" in move["reason"]
