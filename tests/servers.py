"""Where the tests' PostgreSQL and Redis come from, in this order:

1. the environment: STRATA_TEST_DATABASE_URLS (or ..._URL), administrators' DSNs separated by white space, and
   STRATA_TEST_REDIS_URL (a server that the tests may fill and empty);
2. containers, where a Docker engine answers and can start them;
3. the embedded servers, in a temporary folder. One set for each pytest process (each xdist worker has its own).
"""

from __future__ import annotations

import fcntl
import gc
import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import docker
from docker.errors import DockerException
from testcontainers.community.postgres import PostgresContainer
from testcontainers.community.redis import RedisContainer

from strata.platform.embedded import EmbeddedPostgres, EmbeddedRedis
from strata.platform.embedded.postgres import NOT_DURABLE, SETTINGS

POSTGRES_IMAGE = "postgres:18-alpine"
REDIS_IMAGE = "redis:7-alpine"
PASSWORD = "for-tests-only"


@dataclass(frozen=True)
class PostgresServer:
    """A cluster, and an administrator's way in. Databases and roles are the test's to make and to drop."""

    name: str
    admin_dsn: str
    origin: str

    def dsn(self, database: str, *, user: str | None = None, password: str | None = None) -> str:
        """The same server, another database; with `user`, as somebody else."""
        parts = urlsplit(self.admin_dsn)
        netloc = parts.netloc
        if user is not None:
            credentials = user if password is None else f"{user}:{password}"
            netloc = f"{credentials}@{netloc.rpartition('@')[2]}"
        return urlunsplit(parts._replace(netloc=netloc, path=f"/{database}"))

    @property
    def host(self) -> str:
        return urlsplit(self.admin_dsn).hostname or "127.0.0.1"

    @property
    def port(self) -> int:
        return urlsplit(self.admin_dsn).port or 5432


@dataclass(frozen=True)
class RedisServer:
    url: str
    origin: str


class TestServers:
    """Starts each server when it is first asked for, and stops them all at the end."""

    __test__ = False

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._named = os.environ.get(
            "STRATA_TEST_DATABASE_URLS", os.environ.get("STRATA_TEST_DATABASE_URL", "")
        ).split()
        self._redis_url = os.environ.get("STRATA_TEST_REDIS_URL", "")
        self._containers: bool | None = None
        self._directory: Path | None = None

    def postgres(self, number: int) -> PostgresServer:
        name = f"postgres-{number}"
        if number <= len(self._named):
            return PostgresServer(name, self._named[number - 1], "environment")
        if self._containers_work():
            try:
                return PostgresServer(name, self._postgres_container(), "container")
            except DockerException as error:
                self._give_up_containers(error)
        server = self._stack.enter_context(EmbeddedPostgres(self._embedded_directory(), name, durable=False))
        return PostgresServer(name, server.dsn(), "embedded")

    def redis(self) -> RedisServer:
        if self._redis_url:
            return RedisServer(self._redis_url, "environment")
        if self._containers_work():
            try:
                return RedisServer(self._redis_container(), "container")
            except DockerException as error:
                self._give_up_containers(error)
        server = self._stack.enter_context(EmbeddedRedis(self._embedded_directory()))
        return RedisServer(server.url, "embedded")

    def _containers_work(self) -> bool:
        if self._containers is None:
            self._containers = _docker_answers()
            _collect_what_docker_left()
        return self._containers

    def _give_up_containers(self, error: DockerException) -> None:
        """An engine without a way to the images, for one: no reason not to test."""
        self._containers = False
        warnings.warn(f"containers do not start, taking embedded servers: {error}", RuntimeWarning, stacklevel=2)

    def _postgres_container(self) -> str:
        settings = {**SETTINGS, **NOT_DURABLE, "listen_addresses": "*"}
        command = ["postgres", *(part for key, value in settings.items() for part in ("-c", f"{key}={value}"))]
        container = PostgresContainer(
            POSTGRES_IMAGE, username="postgres", password=PASSWORD, dbname="postgres", driver=None, command=command
        )
        url: str = self._stack.enter_context(container).get_connection_url()
        return url

    def _redis_container(self) -> str:
        container = self._stack.enter_context(RedisContainer(REDIS_IMAGE, password=PASSWORD))
        return f"redis://:{PASSWORD}@{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"

    def _embedded_directory(self) -> Path:
        if self._directory is None:
            self._directory = self._stack.enter_context(_scratch_directory())
        return self._directory


def _docker_answers() -> bool:
    client: docker.DockerClient | None = None
    try:
        client = docker.from_env(timeout=5)
        return bool(client.ping())
    except DockerException:
        return False
    finally:
        if client is not None:
            client.close()


def _collect_what_docker_left() -> None:
    """A client that finds no engine fails in its constructor and leaves its socket to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@contextmanager
def _scratch_directory() -> Iterator[Path]:
    """A folder with a name that comes back, so that servers left by a killed run are found and stopped by the next.

    Runs at the same time (xdist workers, two people) take different numbers: each holds its folder's lock.
    """
    checkout = hashlib.sha256(str(Path(__file__).resolve()).encode()).hexdigest()[:8]
    base = Path(tempfile.gettempdir()) / f"strata-tests-{os.getuid()}-{checkout}"
    base.mkdir(mode=0o711, exist_ok=True)
    number = 0
    while True:
        number += 1
        lock = (base / f"{number}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            lock.close()
    directory = base / str(number)
    with lock:
        _clear(directory)
        yield directory
        _clear(directory)


def _clear(directory: Path) -> None:
    for name in ("postgres-1", "postgres-2"):
        EmbeddedPostgres(directory, name).stop_orphan()
    EmbeddedRedis(directory).stop_orphan()
    shutil.rmtree(directory, ignore_errors=True)
