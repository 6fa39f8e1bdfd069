"""Moves on a whole platform: two servers, an application that serves, and moves worked in this process or in workers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from strata.events import relaying
from strata.migrator import faults
from strata.platform.settings import CacheSettings, FenceSettings
from strata.runtime import Runtime
from tests.builders.breakable import Breakable, breakable
from tests.builders.move_worker import QUICK
from tests.builders.moving import Movers, Neighbour
from tests.builders.platform import Platform, Tenantry, new_platform, standing
from tests.builders.site import Site, serving
from tests.servers import PostgresServer, RedisServer


@pytest.fixture(scope="session")
def moving_platform(
    postgres_server: PostgresServer,
    second_postgres_server: PostgresServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Platform:
    return new_platform(postgres_server, second_postgres_server, redis_server, tmp_path_factory.mktemp("moving"))


@pytest.fixture(scope="session")
async def moving_runtime(moving_platform: Platform) -> AsyncIterator[Runtime]:
    """A platform that moves may disturb: other tests have the one of tests/integration."""
    # The worker that takes over competes with everything else for the machine's processors.
    async with (
        standing(
            moving_platform,
            migrator=QUICK,
            fence=FenceSettings(wait_s=30),
            cache=CacheSettings(redis_timeout_s=5.0),
        ) as made,
        relaying(made),
    ):
        yield made


@pytest.fixture(scope="session")
async def moving_site(moving_runtime: Runtime) -> AsyncIterator[Site]:
    async with serving(moving_runtime) as site:
        yield site


@pytest.fixture(scope="session")
def mover_tenant(moving_runtime: Runtime) -> Tenantry:
    return Tenantry(moving_runtime)


@pytest.fixture(scope="session")
def movers(moving_runtime: Runtime) -> Movers:
    return Movers(moving_runtime)


@pytest.fixture(autouse=True)
def nothing_armed() -> Iterator[None]:
    yield
    faults.disarm()


@pytest.fixture(scope="session")
async def neighbour(moving_runtime: Runtime, mover_tenant: Tenantry) -> Neighbour:
    """Lives where the others move from and to; nobody writes to it."""
    return await Neighbour.settled(moving_runtime, mover_tenant)


@pytest.fixture(scope="session")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Breakable]:
    """A platform whose servers a test may kill: those of the others are not touched."""
    async with breakable(tmp_path_factory.mktemp("ground")) as made:
        yield made
