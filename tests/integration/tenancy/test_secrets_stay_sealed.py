"""DSNs, passwords and cell secrets: sealed in the catalog, and nowhere in logs, errors or representations."""

from __future__ import annotations

import io
import logging
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from strata.platform.database import addresses
from strata.platform.errors import StrataError
from strata.platform.logging import configure_logging
from strata.platform.settings import FenceSettings
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.servers import add_server
from strata.tenancy.provisioning.tenants import NewTenant
from tests.builders.logs import logging_as_it_was
from tests.builders.platform import ACTOR, FIRST_CELL, Platform, Tenantry, admin_of, as_admin, new_platform, standing
from tests.servers import PostgresServer, RedisServer


@pytest.fixture
async def guarded(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer, redis_server: RedisServer, tmp_path: Path
) -> AsyncIterator[tuple[Platform, list[str]]]:
    """A platform whose administrator has a password that can be looked for, also where the server asks for none."""
    password, admin = f"Pass{secrets.token_hex(12)}", f"a{secrets.token_hex(6)}"
    async with as_admin(postgres_server, "postgres") as superuser:
        await superuser.execute(f"CREATE ROLE {admin} SUPERUSER LOGIN PASSWORD '{password}'")
    first = PostgresServer(
        "guarded", postgres_server.dsn("postgres", user=admin, password=password), postgres_server.origin
    )
    try:
        yield new_platform(first, second_postgres_server, redis_server, tmp_path), [password]
    finally:
        async with as_admin(postgres_server, "postgres") as superuser:
            await superuser.execute(f"DROP OWNED BY {admin}; DROP ROLE {admin}")


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def everything_logged(log: io.StringIO) -> object:
    """As a process of ours logs, at DEBUG, with SQLAlchemy's echo and asyncpg included."""
    with logging_as_it_was():
        configure_logging("tests", level=logging.DEBUG, as_json=True, stream=log)
        for name in ("sqlalchemy.engine", "sqlalchemy.pool", "asyncpg", "asyncio", "alembic"):
            logging.getLogger(name).setLevel(logging.DEBUG)
        yield
        for name in ("sqlalchemy.engine", "sqlalchemy.pool", "asyncpg", "asyncio", "alembic"):
            logging.getLogger(name).setLevel(logging.NOTSET)


async def secrets_of(runtime: Runtime, cells: list[str]) -> list[str]:
    """Every form in which what is secret could appear."""
    found = []
    for name in cells:
        cell = await runtime.registry.cell(name)
        key: bytes = cell.secret._key
        inner, outer = cell.secret.padded()
        found += [str(cell.url.password), key.hex(), inner, outer, repr(key)[2:-1], inner[:40], outer[:40]]
    return found


@pytest.mark.usefixtures("everything_logged")
async def test_nothing_secret_is_written_anywhere(guarded: tuple[Platform, list[str]], log: io.StringIO) -> None:
    platform, hidden = guarded
    said: list[str] = []
    async with standing(platform, fence=FenceSettings(wait_s=0.5)) as runtime:
        tenants = [await Tenantry(runtime)(tier) for tier in Tier]
        cells = [tenant.placement.cell for tenant in tenants]
        hidden += await secrets_of(runtime, cells)
        for tenant in tenants:
            secret = (await runtime.registry.cell(tenant.placement.cell)).secret
            hidden.append(secret.capability(tenant.id, tenant.placement.epoch))
            async with runtime.tenants.transaction(tenant) as session:
                await session.execute(text("SELECT 1"))
            said += await _mishaps(runtime, tenant.placement.cell, tenant.slug)
        for name in cells:
            cell = await runtime.registry.cell(name)
            opened = await runtime.engines.open(name)
            said += [repr(cell), str(cell), repr(opened), repr(opened.engine), repr(cell.secret), str(cell.secret)]
        said += [repr(runtime), str(runtime.settings), repr(runtime.settings), repr(runtime.catalog_engine)]
        said += [repr(await runtime.registry.servers()), repr(await runtime.registry.cells())]
        dump = await _catalog_dump(platform)
        for tenant in tenants:
            await runtime.provisioning.delete(tenant.slug, ACTOR)
    assert len(log.getvalue()) > 10_000, "nothing was logged, so this shows nothing"
    for value in hidden:
        assert len(value) >= 20
        assert value not in dump
        assert value not in log.getvalue()
        assert not any(value in each for each in said), [each for each in said if value in each]


async def _mishaps(runtime: Runtime, cell: str, slug: str) -> list[str]:
    """The texts of errors that come from where secrets are at hand."""
    said = []
    context = await runtime.contexts.get_by_slug(slug)
    async with admin_of(runtime, cell) as admin:
        await admin.execute("UPDATE strata.secret SET ipad = set_byte(ipad, 0, (get_byte(ipad, 0) + 1) % 256)")
        said.append(await _error_of(runtime, slug))
        await admin.execute("UPDATE strata.secret SET ipad = set_byte(ipad, 0, (get_byte(ipad, 0) + 255) % 256)")
        await admin.execute("UPDATE strata.fence SET state = 'moved' WHERE tenant_id = $1", context.id)
        said.append(await _error_of(runtime, slug))
        await admin.execute("UPDATE strata.fence SET state = 'active' WHERE tenant_id = $1", context.id)
        role = f"{runtime.settings.role_prefix}_app"
        await runtime.engines.forget(cell)
        await admin.execute(f"ALTER ROLE {role} NOLOGIN")
        said.append(await _error_of(runtime, slug))
        await admin.execute(f"ALTER ROLE {role} LOGIN")
    return said


async def _error_of(runtime: Runtime, slug: str) -> str:
    context = await runtime.contexts.get_by_slug(slug)
    try:
        async with runtime.tenants.transaction(context) as session:
            await session.execute(text("SELECT 1"))
    except (StrataError, SQLAlchemyError) as error:
        logging.getLogger("strata").exception("a request failed")
        chain: list[str] = []
        cause: BaseException | None = error
        while cause is not None:
            chain.append(f"{cause!r} {cause}")
            cause = cause.__cause__ or cause.__context__
        return "\n".join(chain)
    pytest.fail("it was to fail")


async def _catalog_dump(platform: Platform) -> str:
    """Every value of every table of the catalog, as text."""
    parts = []
    async with as_admin(platform.first, f"{platform.prefix}_catalog") as admin:
        for row in await admin.fetch(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname !~ '^(pg_|information_schema)'"
        ):
            parts += [str(each[0]) for each in await admin.fetch(f"SELECT t::text FROM {row[0]} t")]
    dump = "\n".join(parts)
    assert "local:v1:" in dump
    return dump


async def test_a_dsn_that_cannot_be_read_or_reached_is_not_repeated(runtime: Runtime, platform: Platform) -> None:
    for dsn in (
        "postgresql://admin:Sesame99@127.0.0.1:1/postgres",
        "postgresql://admin:Sesame99@no-such-host.invalid/postgres",
        "mysql://admin:Sesame99@127.0.0.1/x",
        "admin:Sesame99@127.0.0.1/x",
    ):
        with pytest.raises(StrataError) as failure:
            await add_server(
                runtime.registry, "nowhere", addresses.parse(dsn), region="x", role_prefix=platform.prefix, actor=ACTOR
            )
        cause: BaseException | None = failure.value
        while cause is not None:
            assert "Sesame99" not in f"{cause!r} {cause}", dsn
            cause = cause.__cause__ or cause.__context__


async def test_the_administrators_statements_keep_the_apps_password_from_the_servers_log(
    runtime: Runtime, platform: Platform
) -> None:
    """CREATE ROLE … PASSWORD goes over the wire; what pg_stat_activity keeps of it is not the application's to read."""
    async with admin_of(runtime, FIRST_CELL) as admin:
        stored = await admin.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = $1", platform.app_role)
    assert stored.startswith("SCRAM-SHA-256$")


async def test_two_cells_share_no_secret(runtime: Runtime, tenant_on: Tenantry) -> None:
    await runtime.provisioning.create(NewTenant(slug=f"s{secrets.token_hex(5)}", name="x", tier=Tier.DEDICATED), ACTOR)
    keys = [(await runtime.registry.cell(cell.name)).secret._key for cell in await runtime.registry.cells()]
    assert len(keys) == len(set(keys)) >= 3
