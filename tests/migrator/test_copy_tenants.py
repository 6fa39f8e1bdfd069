"""Strata's own tenants, whatever tables they have: copied from every tier to every tier, and equal afterwards."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import msgspec
import pytest

from strata.migrator.copier import Copier
from strata.migrator.copy_sessions import Warrant
from strata.migrator.fitness import objections_to_revisions, objections_to_source, objections_to_target
from strata.migrator.indexes import build
from strata.migrator.tables import Home, Table, TenantTables, describe
from strata.migrator.target import Target
from strata.migrator.verifier import Verifier
from strata.platform.database.administration import administrator
from strata.platform.database.names import quoted
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import CellKind, Tier, schema_for
from tests.builders.copying import drop_origin
from tests.builders.platform import SECOND_CELL, SECOND_SERVER, Tenantry, new_platform, standing
from tests.builders.rows import fill, fingerprint, tables_of
from tests.servers import PostgresServer, RedisServer


@pytest.fixture(scope="module")
async def ground(
    postgres_server: PostgresServer,
    second_postgres_server: PostgresServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Runtime]:
    platform = new_platform(postgres_server, second_postgres_server, redis_server, tmp_path_factory.mktemp("copying"))
    async with standing(platform) as runtime:
        yield runtime


async def home_of(runtime: Runtime, context: TenantContext) -> Home:
    placement = context.placement
    url = await runtime.registry.admin_url_of_cell(placement.cell)
    return Home(context.id, placement.cell, placement.tier, placement.schema_name, url)


async def new_home(runtime: Runtime, context: TenantContext, tier: Tier) -> Home:
    """What a move prepares on the second server, without a fence row: the first tenant's rows are not let in by this."""
    chain = runtime.upgrades.survey.chains.tenant
    if tier is not Tier.DEDICATED:
        url = await runtime.registry.admin_url_of_cell(SECOND_CELL)
        home = Home(context.id, SECOND_CELL, tier, schema_for(tier, context.id), url)
        if tier is Tier.SCHEMA:
            async with administrator(url) as admin:
                await admin.execute(f"CREATE ROLE {quoted(home.schema_name)} NOLOGIN NOINHERIT")
            await Target(home).make_tables(home.schema_name, chain)
            await Target(home).make_tables(home.schema_name, chain)
        return home
    # A database of somebody else's dedicated tenant-to-be: its cell is made, nobody is in it.
    return await dedicated_home(runtime, context)


async def dedicated_home(runtime: Runtime, context: TenantContext) -> Home:
    name = f"dedicated-{secrets.token_hex(4)}"
    cells, registry = runtime.cells, runtime.registry
    async with cells._sessions.begin() as session:
        host = await registry.server_row(session, SECOND_SERVER)
        await cells.register(session, name, host, CellKind.DEDICATED, region=None, capacity=1)
    await cells.build(name)
    url = await registry.admin_url_of_cell(name)
    return Home(context.id, name, Tier.DEDICATED, schema_for(Tier.DEDICATED, context.id), url)


QUICK = {(Tier.SHARED, Tier.SHARED), (Tier.SCHEMA, Tier.DEDICATED), (Tier.DEDICATED, Tier.SCHEMA)}


@pytest.mark.parametrize(
    ("source_tier", "target_tier"),
    [pytest.param(a, b, marks=[] if (a, b) in QUICK else [pytest.mark.slow]) for a in Tier for b in Tier],
)
async def test_from_every_tier_to_every_tier(ground: Runtime, source_tier: Tier, target_tier: Tier) -> None:
    tenant_on = Tenantry(ground)
    context, neighbour = await tenant_on(source_tier), await tenant_on(Tier.SHARED, cell=SECOND_CELL)
    source, target = await home_of(ground, context), await new_home(ground, context, target_tier)
    async with administrator(source.url) as here, administrator(target.url) as there:
        filled = await fill(here, await tables_of(here, source.schema_name), context.id)
        async with administrator(await ground.registry.admin_url_of_cell(SECOND_CELL)) as other:
            await fill(other, await tables_of(other, "shared"), neighbour.id)
            before = await fingerprint(other, "shared", neighbour.id)

            tables = await describe(here, source.schema_name)
            assert await objections_to_source(here, tables) == []
            as_made = await describe(there, target.schema_name)
            assert await objections_to_target(there, target, as_made, tables) == []
            assert await objections_to_revisions(here, source.schema_name, there, target.schema_name) == []

            origin = f"copy_{secrets.token_hex(4)}"
            if target.exclusive:
                assert await Target(target).strip() > 20
            async with here.transaction(isolation="repeatable_read"):
                snapshot = await here.fetchval("SELECT pg_export_snapshot()")
                copied = await Copier(source, target, tables, snapshot=snapshot, origins=[origin]).run()
                await build(target, tables, warrant=Warrant("strata-move-test"))
            assert copied.rows == dict.fromkeys(filled, 1)
            assert (await Verifier(source, target).compare(None, None)).equal
            assert await fingerprint(there, target.schema_name, context.id) == await fingerprint(
                here, source.schema_name, context.id
            )
            assert await fingerprint(other, "shared", neighbour.id) == before
            assert _alike(await describe(there, target.schema_name)) == _alike(as_made)

            await Target(target).empty()
            assert await Target(target).is_empty()
            assert not (await Verifier(source, target).compare(None, None)).equal
            assert await fingerprint(other, "shared", neighbour.id) == before
        await drop_origin(there, origin)


def _alike(tables: TenantTables) -> list[Table]:
    """Without what changes by itself."""
    return [msgspec.structs.replace(table, estimated_rows=0, size_bytes=0) for table in tables.tables]
