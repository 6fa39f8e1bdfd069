"""The worker beside `strata up`: it serves, comes back when it or the catalog is killed, and never outlives who started it."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from strata.platform.embedded import EmbeddedPostgres, EmbeddedRedis
from tests.builders.command import ended, started, up

SOON_S = 30.0
QUEUE = """
INSERT INTO jobs.procrastinate_jobs (queue_name, task_name, args) VALUES
    ('platform', 'tenancy.sweep', jsonb_build_object('owner', '', 'key', gen_random_uuid(), 'attempts', 1))
RETURNING id
"""
IS_DONE = "SELECT status = 'succeeded' FROM jobs.procrastinate_jobs WHERE id = $1"


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Directly under the folder for such: PostgreSQL's account must get there when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="strata-up-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "data"
        path.parent.chmod(0o711)
        yield path
        for server in (EmbeddedPostgres(path, "postgres-1"), EmbeddedRedis(path)):
            server.stop_orphan()


def workers_of(data_dir: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if "worker" in words and str(data_dir) in words:
            found.append(int(entry.name))
    return found


async def one_worker(data_dir: Path, *, but: int = 0) -> int:
    async with asyncio.timeout(SOON_S):
        while (found := workers_of(data_dir)) in ([], [but]):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    [pid] = found
    return pid


async def jobs_are_done(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        job = await connection.fetchval(QUEUE)
        async with asyncio.timeout(SOON_S):
            while not await connection.fetchval(IS_DONE, job):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def answers_again(dsn: str) -> None:
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                await (await asyncpg.connect(dsn)).close()
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.05)
            else:
                return


@pytest.mark.slow
async def test_it_serves_comes_back_and_stops_with_the_rest(data_dir: Path) -> None:
    async with up("--port", "0", "--no-demo", data_dir=data_dir) as strata:
        dsn = (await strata.until("ready"))["postgres"]["dsn"]
        first = await one_worker(data_dir)
        await jobs_are_done(dsn)
        os.kill(first, signal.SIGKILL)
        second = await one_worker(data_dir, but=first)
        assert second != first
        await jobs_are_done(dsn)
        os.kill(int((data_dir / "postgres-1" / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        await answers_again(dsn)
        await jobs_are_done(dsn)
        said = await ended(strata.process, by=signal.SIGTERM)
    assert said.code == 0
    assert "worker ended; starting it again" in said.err
    assert "server is back" in said.err
    assert "Traceback" not in said.err
    assert workers_of(data_dir) == []


@pytest.mark.slow
async def test_it_ends_when_strata_up_is_killed(data_dir: Path) -> None:
    """So does the one of test_up's life: else its standard error would not end."""
    async with up("--port", "0", "--no-demo", data_dir=data_dir) as strata:
        await strata.until("ready")
        await one_worker(data_dir)
        # Not waited for by its output: the worker holds the same standard error until it ends.
        strata.process.kill()
        await strata.process.wait()
        async with asyncio.timeout(SOON_S):
            while workers_of(data_dir):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_worker_of_ones_own_beside_it(data_dir: Path) -> None:
    async with up("--port", "0", "--no-demo", "--no-worker", data_dir=data_dir) as strata:
        dsn = (await strata.until("ready"))["postgres"]["dsn"]
        assert workers_of(data_dir) == []
        words = ("worker", "--concurrency", "2", "--queues", "default,platform", "--json", "--data-dir", data_dir)
        async with started(*words, env={}, cwd=data_dir.parent) as worker:
            assert worker.stdout is not None
            assert b'"event":"ready"' in await worker.stdout.readline()
            await jobs_are_done(dsn)
            said = await ended(worker, by=signal.SIGINT)
            assert (said.code, said.out) == (0, '{"event":"stopped"}\n')
        nonsense = ("worker", "--queues", "nonsense", "--json", "--data-dir", data_dir)
        async with started(*nonsense, env={}, cwd=data_dir.parent) as worker:
            said = await ended(worker)
            assert (said.code, said.error["code"]) == (1, "invalid-input")
        assert (await ended(strata.process, by=signal.SIGTERM)).code == 0
