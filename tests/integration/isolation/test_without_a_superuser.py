"""Where the administrator cannot build every wall, no cell is built: the refusal says what is missing."""

from __future__ import annotations

import secrets

import pytest

from strata.platform.database import addresses
from strata.platform.errors import ConfigurationError
from strata.runtime import Runtime
from strata.tenancy.provisioning.servers import add_server
from tests.builders.platform import ACTOR, as_admin
from tests.servers import PostgresServer


@pytest.mark.parametrize(
    ("rights", "missing"),
    [
        ("CREATEDB CREATEROLE", "BYPASSRLS"),
        ("BYPASSRLS CREATEDB", "CREATEROLE"),
        ("BYPASSRLS CREATEROLE", "CREATEDB"),
        ("BYPASSRLS CREATEROLE CREATEDB", "superuser"),
    ],
)
async def test_it_is_told_at_once(
    runtime: Runtime, second_postgres_server: PostgresServer, rights: str, missing: str
) -> None:
    """REVOKE on a function of PostgreSQL's own does nothing but warn, unless its owner says it."""
    name = f"limited_{secrets.token_hex(4)}"
    async with as_admin(second_postgres_server, "postgres") as superuser:
        await superuser.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'limited' NOSUPERUSER {rights}")
        try:
            dsn = second_postgres_server.dsn("postgres", user=name, password="limited")
            with pytest.raises(ConfigurationError, match=missing):
                await add_server(
                    runtime.registry, name, addresses.parse(dsn), region="x", role_prefix=name, actor=ACTOR
                )
            assert not await superuser.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", f"{name}_app")
        finally:
            await superuser.execute(f"DROP ROLE {name}")
    assert name not in {server.name for server in await runtime.registry.servers()}
