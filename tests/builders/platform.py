"""A whole platform on the test servers: a catalog of its own, two servers with one shared cell each, tenants on demand."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import SecretStr

from strata.platform.database import addresses
from strata.platform.database.administration import administrator
from strata.platform.database.names import quoted
from strata.platform.settings import Environment, ImportSettings, Settings
from strata.runtime import Runtime, open_runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.servers import add_server
from strata.tenancy.provisioning.tenants import NewTenant
from tests.servers import PostgresServer, RedisServer

if TYPE_CHECKING:
    import asyncpg

ACTOR = "tests"
FIRST_SERVER, SECOND_SERVER = "one", "two"
FIRST_CELL, SECOND_CELL = "cell-1", "cell-2"
REGIONS = {FIRST_SERVER: "north", SECOND_SERVER: "south"}


class Platform(msgspec.Struct, frozen=True):
    """Addresses under a prefix: all databases and the application's role begin with it, so that two runs on one
    cluster do not meet."""

    prefix: str
    first: PostgresServer
    second: PostgresServer
    redis: RedisServer
    data_dir: Path

    def settings(self, **overrides: Any) -> Settings:  # noqa: ANN401 - any group of settings
        return Settings(
            **{
                "environment": Environment.TEST,
                "database_url": SecretStr(self.first.dsn(f"{self.prefix}_catalog")),
                "redis_url": SecretStr(self.redis.url),
                "role_prefix": self.prefix,
                "data_dir": self.data_dir,
                # Tests keep the database busy, which is what imports make way for.
                "imports": ImportSettings(most_share=1, least_share=1),
                **overrides,
            }
        )

    @property
    def app_role(self) -> str:
        return f"{self.prefix}_app"


def new_platform(first: PostgresServer, second: PostgresServer, redis: RedisServer, data_dir: Path) -> Platform:
    return Platform(f"x{secrets.token_hex(4)}", first, second, redis, data_dir)


@asynccontextmanager
async def standing(platform: Platform, **overrides: Any) -> AsyncIterator[Runtime]:  # noqa: ANN401 - as settings()
    """Catalog, servers `one` (region north) and `two` (south), cells `cell-1` and `cell-2`; all dropped at the end.

    `overrides` are groups of settings: `pool=PoolSettings(shared_size=2)`.
    """
    async with as_admin(platform.first, "postgres") as admin:
        await admin.execute(f"CREATE DATABASE {quoted(f'{platform.prefix}_catalog')}")
    try:
        async with open_runtime(platform.settings(**overrides), upgrade=True) as runtime:
            for name, cell, server in (
                (FIRST_SERVER, FIRST_CELL, platform.first),
                (SECOND_SERVER, SECOND_CELL, platform.second),
            ):
                await add_server(
                    runtime.registry,
                    name,
                    addresses.parse(server.admin_dsn),
                    region=REGIONS[name],
                    role_prefix=platform.prefix,
                    actor=ACTOR,
                )
                await runtime.cells.add_shared(cell, name, actor=ACTOR)
            yield runtime
    finally:
        for server in (platform.first, platform.second):
            await _clear(server, platform.prefix)


@asynccontextmanager
async def second_process(runtime: Runtime, **overrides: Any) -> AsyncIterator[Runtime]:  # noqa: ANN401 - as settings()
    """Another runtime on the same catalog: what a second process would be, with settings of its own."""
    async with open_runtime(runtime.settings.model_copy(update=overrides)) as other:
        yield other


class Tenantry:
    """Makes tenants. The slug is new each time unless one is given."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def __call__(
        self, tier: Tier, *, slug: str | None = None, cell: str | None = FIRST_CELL, plan: str | None = None
    ) -> TenantContext:
        """A new tenant's context. Shared and schema ones live in `cell-1` unless told otherwise."""
        slug = slug or f"t{secrets.token_hex(5)}"
        # Not the plan that a shared tenant has by default: most tests ask for more a minute than that allows.
        plan = plan or ("business" if tier is Tier.SHARED else None)
        new = NewTenant(
            slug=slug, name=slug.title(), tier=tier, plan=plan, cell=None if tier is Tier.DEDICATED else cell
        )
        await self._runtime.provisioning.create(new, ACTOR)
        return await self._runtime.contexts.get_by_slug(slug)


def as_admin(server: PostgresServer, database: str) -> AbstractAsyncContextManager[asyncpg.Connection]:
    """The administrator's connection to a database of the server."""
    return administrator(addresses.parse(server.dsn(database)))


@asynccontextmanager
async def admin_of(runtime: Runtime, cell: str) -> AsyncIterator[asyncpg.Connection]:
    """The administrator's connection to a cell; the superuser sees and does everything there."""
    async with administrator(await runtime.registry.admin_url_of_cell(cell)) as admin:
        yield admin


async def _clear(server: PostgresServer, prefix: str) -> None:
    """Databases of the prefix and every role that was granted to its application role, or is it."""
    async with as_admin(server, "postgres") as admin:
        for row in await admin.fetch("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", f"{prefix}_"):
            await admin.execute(f"DROP DATABASE {quoted(row['datname'])} WITH (FORCE)")
        roles = await admin.fetch(
            "SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid"
            " JOIN pg_roles app ON app.oid = m.member AND app.rolname = $1"
            " UNION ALL SELECT rolname FROM pg_roles WHERE starts_with(rolname, $2)",
            f"{prefix}_app",
            f"{prefix}_",
        )
        for row in roles:
            await admin.execute(f"DROP ROLE {quoted(row['rolname'])}")
