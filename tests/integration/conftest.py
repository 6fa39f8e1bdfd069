"""The platform that integration tests share: one a pytest process, made when it is first asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from strata.runtime import Runtime
from tests.builders.platform import Platform, Tenantry, new_platform, standing
from tests.servers import PostgresServer, RedisServer


@pytest.fixture(scope="session")
def platform(
    postgres_server: PostgresServer,
    second_postgres_server: PostgresServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Platform:
    return new_platform(postgres_server, second_postgres_server, redis_server, tmp_path_factory.mktemp("platform"))


@pytest.fixture(scope="session")
async def runtime(platform: Platform) -> AsyncIterator[Runtime]:
    """Shared by all tests of the process: make tenants of your own, leave servers, cells and plans as they are."""
    async with standing(platform) as made:
        yield made


@pytest.fixture(scope="session")
def tenant_on(runtime: Runtime) -> Tenantry:
    """`context = await tenant_on(Tier.SCHEMA)`: a new tenant, with nothing in it."""
    return Tenantry(runtime)
