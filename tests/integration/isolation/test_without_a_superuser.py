"""Where the administrator is no superuser (a managed server), the same walls must stand, or the cell must not be made."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.intruder import FORBIDDEN, attempt, inside
from tests.builders.platform import Tenantry, as_admin, new_platform, standing
from tests.builders.rows import tables_of
from tests.servers import PostgresServer, RedisServer


@pytest.fixture(scope="module")
async def limited(
    postgres_server: PostgresServer,
    second_postgres_server: PostgresServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Runtime]:
    name = f"limited_{secrets.token_hex(4)}"
    servers = []
    for server in (postgres_server, second_postgres_server):
        async with as_admin(server, "postgres") as superuser:
            await superuser.execute(
                f"CREATE ROLE {name} LOGIN PASSWORD 'limited' NOSUPERUSER CREATEDB CREATEROLE BYPASSRLS"
            )
        servers.append(PostgresServer(server.name, server.dsn("postgres", user=name, password="limited"), server.origin))
    try:
        async with standing(
            new_platform(servers[0], servers[1], redis_server, Path(tmp_path_factory.mktemp("limited")))
        ) as made:
            yield made
    finally:
        for server in (postgres_server, second_postgres_server):
            async with as_admin(server, "postgres") as superuser:
                await superuser.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


STATEMENTS = [
    "SELECT query FROM pg_stat_activity",
    "SELECT pg_advisory_lock(1)",
    "SELECT lo_create(0)",
    "SELECT pg_terminate_backend(pg_backend_pid())",
    "SELECT pg_notify('x', 'y')",
    "SELECT * FROM strata.secret",
    "CREATE TEMP TABLE t (id int)",
    "DO $$ BEGIN NULL; END $$",
    "DROP OWNED BY CURRENT_USER",
]


@pytest.mark.parametrize("tier", Tier)
async def test_it_holds_tenants(limited: Runtime, tier: Tier) -> None:
    tenant = await Tenantry(limited)(tier)
    async with inside(limited, tenant) as connection:
        await connection.execute("INSERT INTO product (sku, name) VALUES ('a', 'x')")
    async with as_admin(
        PostgresServer("x", (await limited.registry.admin_url_of_cell(tenant.placement.cell)).render_as_string(False), ""),
        str((await limited.registry.admin_url_of_cell(tenant.placement.cell)).database),
    ) as admin:
        assert len(await tables_of(admin, tenant.placement.schema_name)) >= 11
    removal = await limited.provisioning.delete(tenant.slug, "tests")
    assert not any(removal.remains.values())


@pytest.mark.parametrize("statement", STATEMENTS)
async def test_what_is_forbidden_is_forbidden_here_too(limited: Runtime, statement: str) -> None:
    tenant = await Tenantry(limited)(Tier.SHARED)
    async with inside(limited, tenant) as connection:
        assert (await attempt(connection, statement)).sqlstate == FORBIDDEN
