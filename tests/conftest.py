"""Fixtures for everything: the servers. A fixture's name exists once (style.md)."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import structlog
from hypothesis import settings as hypothesis_settings

from strata.platform.embedded import EmbeddedRedis
from tests.servers import PostgresServer, RedisServer, TestServers

# Time limits are pytest-timeout's: an example that waits for a busy machine is no failure.
hypothesis_settings.register_profile("strata", deadline=None)
hypothesis_settings.load_profile("strata")

# Nothing here is to outlast the run, and a build machine's disk is slow: servers and files stand in memory where there is
# plenty of it.
_MEMORY, _PLENTY = Path("/dev/shm"), 8 * 2**30  # noqa: S108 - what is made there has names of tempfile
if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _PLENTY:
    tempfile.tempdir = str(_MEMORY)

# Unconfigured, structlog prints to standard output, where commands that run in this process print their document: a
# line of another test's runtime would get into it. So lines go to `logging`, which pytest shows beside a failure.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.KeyValueRenderer(key_order=["event"]),
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
)


def pytest_collection_finish() -> None:
    """What stands now stays: thousands of tests that each collection of garbage need not look at."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def servers() -> Iterator[TestServers]:
    with ExitStack() as stack:
        yield TestServers(stack)


@pytest.fixture(scope="session")
def postgres_server(servers: TestServers) -> PostgresServer:
    return servers.postgres(1)


@pytest.fixture(scope="session")
def second_postgres_server(servers: TestServers) -> PostgresServer:
    """Another cluster: where a tenant moves to."""
    return servers.postgres(2)


@pytest.fixture(scope="session")
def redis_server(servers: TestServers) -> RedisServer:
    return servers.redis()


@pytest.fixture
def stoppable_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """One of this test alone, running: `stop()` it for an outage, `start()` it again on the same port."""
    with EmbeddedRedis(tmp_path) as server:
        yield server
