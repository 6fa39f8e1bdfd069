"""Attackers and victims, on a platform of their own.

The controls run each attack with nothing in its way, over whole tables: the rows of other suites' tenants would be hit
too, and there are tens of thousands of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from strata.runtime import Runtime
from tests.builders.platform import Platform, Tenantry, new_platform, standing
from tests.builders.scenes import Meeting, Scene, new_scene
from tests.servers import PostgresServer, RedisServer

_MADE: dict[Meeting, Scene] = {}


@pytest.fixture(scope="session")
def platform(
    postgres_server: PostgresServer,
    second_postgres_server: PostgresServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Platform:
    return new_platform(postgres_server, second_postgres_server, redis_server, tmp_path_factory.mktemp("isolation"))


@pytest.fixture(scope="session")
async def runtime(platform: Platform) -> AsyncIterator[Runtime]:
    async with standing(platform) as made:
        yield made


@pytest.fixture(scope="session")
def tenant_on(runtime: Runtime) -> Tenantry:
    return Tenantry(runtime)


@pytest.fixture(params=Meeting)
async def scene(request: pytest.FixtureRequest, runtime: Runtime, tenant_on: Tenantry) -> Scene:
    """Each meeting once; tests leave the victim's rows as they are, and look whether they did."""
    meeting = Meeting(request.param)
    if meeting not in _MADE:
        _MADE[meeting] = await new_scene(runtime, tenant_on, meeting)
    return _MADE[meeting]
