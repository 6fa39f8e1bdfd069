"""What the measured applications stand on: a scratch PostgreSQL and Redis, and processes that end with the run."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import asyncpg
import msgspec

from strata.platform.embedded import EmbeddedPostgres, EmbeddedRedis
from strata.platform.embedded.directory import find_free_port
from tests.bench.machine import ROOT

_READY_WITHIN_S = 60.0
_STOPS_WITHIN_S = 15.0


class ServerNotReadyError(Exception):
    pass


class Server(msgspec.Struct, frozen=True):
    """A running web server."""

    name: str
    port: int
    pid: int


class Ground:
    def __init__(self, directory: Path, postgres: EmbeddedPostgres, redis: EmbeddedRedis, stack: ExitStack) -> None:
        self.directory = directory
        self.postgres = postgres
        self.redis = redis
        self._stack = stack
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def postgres_pid(self) -> int:
        assert self.postgres.pid is not None
        return self.postgres.pid

    def dsn(self, database: str, *, driver: str = "postgresql") -> str:
        return self.postgres.dsn(database).replace("postgresql:", f"{driver}:", 1)

    async def make_database(self, name: str) -> None:
        connection = await asyncpg.connect(self.dsn("postgres"))
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()

    async def settle(self, *databases: str) -> None:
        """Statistics as autovacuum would have them by and by, and no checkpoint left over from the filling."""
        for database in databases:
            connection = await asyncpg.connect(self.dsn(database))
            try:
                await connection.execute("VACUUM ANALYZE")
                await connection.execute("CHECKPOINT")
            finally:
                await connection.close()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Server:
        """Start a web server that takes `{port}` somewhere in its command; returns when the port answers."""
        port = find_free_port()
        log = self._stack.enter_context((self.directory / f"{name}.log").open("wb"))
        process = subprocess.Popen(
            [part.replace("{port}", str(port)) for part in command],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._processes[process.pid] = process
        self._stack.callback(_stop, process)
        self._wait_until_ready(name, process, port)
        return Server(name, port, process.pid)

    def stop(self, server: Server) -> None:
        """Before the end of the run, which would stop it anyway."""
        _stop(self._processes[server.pid])

    def _wait_until_ready(self, name: str, process: subprocess.Popen[bytes], port: int) -> None:
        deadline = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        message = f"{name} did not come up:\n{(self.directory / f'{name}.log').read_text(errors='replace')[-3000:]}"
        raise ServerNotReadyError(message)


@contextmanager
def ground(*, durable: bool = True) -> Iterator[Ground]:
    """Durable: commits reach the disk as on a real server, on every side alike."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="strata-bench-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o711)
        postgres = stack.enter_context(EmbeddedPostgres(directory, durable=durable))
        redis = stack.enter_context(EmbeddedRedis(directory))
        yield Ground(directory, postgres, redis, stack)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOPS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
