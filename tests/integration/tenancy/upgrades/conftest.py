"""A platform whose tenants get releases that nobody else's tests should see."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.platform import SECOND_CELL, Platform, Tenantry, new_platform, standing
from tests.builders.upgrading import withdraw
from tests.servers import PostgresServer, RedisServer

COLUMN = "colour"
ADD = f"ALTER TABLE product ADD COLUMN {COLUMN} text"


class Estate(msgspec.Struct, frozen=True):
    """Tenants of every tier, schema tenants in two cells on two servers."""

    platform: Platform
    runtime: Runtime
    shared: TenantContext
    dedicated: TenantContext
    schemas: list[TenantContext]
    """Of `cell-1`."""
    elsewhere: TenantContext
    """A schema tenant of `cell-2`."""

    @property
    def tenants(self) -> list[TenantContext]:
        return [self.shared, self.dedicated, *self.schemas, self.elsewhere]


@pytest.fixture(scope="session")
async def standing_estate(
    postgres_server: PostgresServer,
    second_postgres_server: PostgresServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Estate]:
    platform = new_platform(postgres_server, second_postgres_server, redis_server, tmp_path_factory.mktemp("estate"))
    async with standing(platform) as runtime:
        tenant_on = Tenantry(runtime)
        yield Estate(
            platform,
            runtime,
            await tenant_on(Tier.SHARED),
            await tenant_on(Tier.DEDICATED),
            [await tenant_on(Tier.SCHEMA) for _ in range(6)],
            await tenant_on(Tier.SCHEMA, cell=SECOND_CELL),
        )


@pytest.fixture
async def estate(standing_estate: Estate) -> AsyncIterator[Estate]:
    """Each test's release is taken back after it."""
    yield standing_estate
    await withdraw(standing_estate.runtime, COLUMN)
