"""Strata as measured: a tenant on each tier, filled, served by one process, asked with real tokens."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
from pydantic import SecretStr
from sqlalchemy import text

from strata.identity.roles import Role
from strata.identity.tokens import tenant_token
from strata.platform.database import addresses
from strata.platform.settings import PoolSettings, Settings
from strata.runtime import Runtime, open_runtime
from strata.tenancy.entitlements.desk import NewGrant
from strata.tenancy.entitlements.grants import GrantKind
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.cells import SHARED_CAPACITY
from strata.tenancy.provisioning.servers import add_server
from strata.tenancy.provisioning.tenants import NewTenant
from tests.bench import goods
from tests.bench.ground import Ground, Server

CATALOG = "bench_catalog"
CELL = "cell-1"
ACTOR = "bench"
_BEYOND_REACH = 100_000_000
POOL = (10, 10)
"""Connections kept and connections on top, for every pool of every application measured."""
_SERVER = "server-1"
_PREFIX = "bench"


class BenchTenant(msgspec.Struct, frozen=True):
    tier: Tier
    host: str
    token: str

    @property
    def slug(self) -> str:
        return self.host.partition(".")[0]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def settings(ground: Ground, **groups: Any) -> Settings:  # noqa: ANN401 - any group of settings
    size, overflow = POOL
    pool = PoolSettings(shared_size=size, shared_overflow=overflow, dedicated_size=size, dedicated_overflow=overflow)
    return Settings(
        **{
            "database_url": SecretStr(ground.dsn(CATALOG)),
            "redis_url": SecretStr(ground.redis.url),
            "data_dir": ground.directory,
            "role_prefix": _PREFIX,
            "pool": pool,
            **groups,
        }
    )


def environment(ground: Ground) -> dict[str, str]:
    """What tells a process of Strata's where the same platform is."""
    return {
        "STRATA_DATABASE_URL": ground.dsn(CATALOG),
        "STRATA_REDIS_URL": ground.redis.url,
        "STRATA_DATA_DIR": str(ground.directory),
        "STRATA_ROLE_PREFIX": _PREFIX,
    }


@asynccontextmanager
async def standing(ground: Ground, *, capacity: int = SHARED_CAPACITY, **groups: Any) -> AsyncIterator[Runtime]:  # noqa: ANN401 - see settings
    """A platform made from nothing: the catalog, the server, one shared cell."""
    await ground.make_database(CATALOG)
    async with open_runtime(settings(ground, **groups), upgrade=True) as runtime:
        await register(ground, runtime)
        await runtime.cells.add_shared(CELL, _SERVER, actor=ACTOR, capacity=capacity)
        yield runtime


def opened(ground: Ground) -> AbstractAsyncContextManager[Runtime]:
    """Of a platform that stands already."""
    return open_runtime(settings(ground))


async def prepare(ground: Ground) -> list[BenchTenant]:
    """A cell, a tenant on each tier with goods in it, and a token for each."""
    async with standing(ground) as runtime:
        tenants = [await add_tenant(runtime, f"bench-{tier}", tier) for tier in Tier]
        databases = [str(row.database) for row in await runtime.registry.cells()]
    await ground.settle(CATALOG, *databases)
    return tenants


async def register(ground: Ground, runtime: Runtime, *, app_address: str | None = None) -> None:
    """`app_address`: where applications shall reach the cells, if not directly."""
    await add_server(
        runtime.registry,
        _SERVER,
        addresses.parse(ground.dsn("postgres")),
        region="local",
        role_prefix=runtime.settings.role_prefix,
        actor=ACTOR,
        app_address=app_address,
    )


async def add_tenant(runtime: Runtime, slug: str, tier: Tier) -> BenchTenant:
    """With goods in it; nothing that is counted for it refuses it."""
    await runtime.provisioning.create(NewTenant(slug=slug, name=slug.capitalize(), tier=tier), ACTOR)
    # Counted as everybody's requests are, and never reached.
    for limit in (
        "api_rate_per_minute",
        "api_rate_per_key_per_minute",
        "concurrent_requests_soft",
        "concurrent_requests",
    ):
        grant = NewGrant(GrantKind.LIMIT, limit, "measured without refusals", _BEYOND_REACH)
        await runtime.entitlements.grant(slug, grant, ACTOR)
    context = await runtime.contexts.get_by_slug(slug)
    async with runtime.tenants.transaction(context) as session:
        for statement in goods.FILL:
            await session.execute(text(statement))
    token = tenant_token(runtime.tokens, context.id, Role.ADMINISTRATOR, subject=ACTOR)
    return BenchTenant(tier, f"{slug}.localhost", token)


def serve(
    ground: Ground,
    *,
    name: str = "strata",
    database_url: str | None = None,
    redis_url: str | None = None,
    arguments: tuple[str, ...] = (),
    pool: tuple[int, int] = POOL,
) -> Server:
    """`pool`: connections to a cell that are kept, and on top."""
    size, overflow = (str(each) for each in pool)
    return ground.start(
        name,
        [sys.executable, "-m", "tests.bench.strata_server", "--port", "{port}", *arguments],
        {
            **environment(ground),
            **({"STRATA_DATABASE_URL": database_url} if database_url else {}),
            **({"STRATA_REDIS_URL": redis_url} if redis_url else {}),
            "STRATA_POOL__SHARED_SIZE": size,
            "STRATA_POOL__SHARED_OVERFLOW": overflow,
            "STRATA_POOL__DEDICATED_SIZE": size,
            "STRATA_POOL__DEDICATED_OVERFLOW": overflow,
        },
    )
