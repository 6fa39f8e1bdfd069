"""Approving a server that was not failed over: what is refused, what is mended all the same, and what else must be refused."""

from __future__ import annotations

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from strata.migrator.approval.errors import NothingGivenUpError, PerhapsWritableError
from strata.migrator.approval.promoted import require_silent
from strata.platform.database import addresses
from strata.platform.database.administration import administrator
from strata.platform.database.names import quoted
from strata.runtime import Runtime
from strata.tenancy.cell.inspection import application
from strata.tenancy.model import Tier, tenant_schema
from strata.tenancy.provisioning.servers import add_server
from strata.tenancy.provisioning.timelines import AnotherCopyError, OldTimelineError
from tests.builders.command import Command, environment_for
from tests.builders.platform import ACTOR, REGIONS, SECOND_CELL, SECOND_SERVER, Platform, Tenantry, admin_of
from tests.servers import PostgresServer


async def register_again(runtime: Runtime, platform: Platform, server: PostgresServer) -> None:
    await add_server(
        runtime.registry,
        SECOND_SERVER,
        addresses.parse(server.admin_dsn),
        region=REGIONS[SECOND_SERVER],
        role_prefix=platform.prefix,
        actor=ACTOR,
    )


async def catalog_has(runtime: Runtime, timeline: str) -> str:
    """The cell's in the catalog from now on; returns what it was."""
    async with AsyncSession(runtime.catalog_engine) as session, session.begin():
        cell = await runtime.registry.cell_row(session, SECOND_CELL)
        was, cell.timeline = cell.timeline, timeline
    assert was is not None
    return was


@pytest.mark.usefixtures("moving_runtime")
async def test_what_is_given_up_must_be_missing(
    moving_platform: Platform, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeline that was mistyped, or that this very server runs on."""
    for name, value in environment_for(moving_platform).items():
        monkeypatch.setenv(name, value)
    strata = Command(capsys)
    for given_up in ("00000001", "00000009", "rubbish"):
        refused = await strata("server", "approve", SECOND_SERVER, "--give-up", given_up, "--json")
        assert (refused.code, refused.error["code"]) == (1, NothingGivenUpError.code)
        assert given_up in refused.error["detail"]


async def test_a_copy_that_was_left_behind_is_not_registered_again(
    moving_runtime: Runtime, moving_platform: Platform
) -> None:
    """By its own row it lets tenants in: what they wrote there would be lost once somebody sees it."""
    before = await moving_runtime.registry.cell(SECOND_CELL)
    approved = await catalog_has(moving_runtime, "00000009")
    try:
        with pytest.raises(OldTimelineError):
            await register_again(moving_runtime, moving_platform, moving_platform.second)
    finally:
        await catalog_has(moving_runtime, approved)
    async with admin_of(moving_runtime, SECOND_CELL) as admin:
        await admin.execute("UPDATE strata.cell SET timeline = '00000000'")
        try:
            with pytest.raises(AnotherCopyError):
                await register_again(moving_runtime, moving_platform, moving_platform.second)
        finally:
            await admin.execute("UPDATE strata.cell SET timeline = $1", approved)
    assert (await moving_runtime.registry.cell(SECOND_CELL)).url == before.url
    async with application(before):
        pass


async def test_an_application_that_the_standby_refuses_gets_a_new_password(moving_runtime: Runtime) -> None:
    """Renewed after the last that the standby heard: the catalog has a password that is none there."""
    before = await moving_runtime.registry.cell(SECOND_CELL)
    async with admin_of(moving_runtime, SECOND_CELL) as admin:
        await admin.execute(f"ALTER ROLE {quoted(before.url.username or '')} PASSWORD 'older'")
    with pytest.raises(asyncpg.InvalidPasswordError):
        async with application(before):
            pass
    await moving_runtime.approvals.approve(SECOND_SERVER, ACTOR)
    now = await moving_runtime.registry.cell(SECOND_CELL)
    async with application(now):
        pass
    await moving_runtime.approvals.approve(
        SECOND_SERVER, ACTOR, url=await moving_runtime.registry.admin_url_of_server(SECOND_SERVER)
    )
    assert (await moving_runtime.registry.cell(SECOND_CELL)).url == now.url, "nothing to do, nothing renewed"


async def test_one_server_by_two_names_is_no_old_primary(moving_runtime: Runtime) -> None:
    """Whoever is told to stop it would stop the only one that there is."""
    here = await moving_runtime.registry.admin_url_of_server(SECOND_SERVER)
    await require_silent(SECOND_SERVER, here, here.set(host="localhost"))


async def test_an_old_primary_that_refuses_its_administrator_is_not_taken_for_dead(moving_runtime: Runtime) -> None:
    here = await moving_runtime.registry.admin_url_of_server(SECOND_SERVER)
    with pytest.raises(PerhapsWritableError) as refused:
        await require_silent(SECOND_SERVER, here.set(password="another"), here)
    assert f"{here.host}:{here.port}" in refused.value.detail
    await require_silent(SECOND_SERVER, here.set(port=1), here)


@pytest.mark.slow
async def test_homes_without_a_fence_that_are_back(
    moving_runtime: Runtime, moving_platform: Platform, mover_tenant: Tenantry
) -> None:
    """A schema that was kept ready for a tenant since deleted, and a database that a move had made."""
    deleted = await mover_tenant(Tier.SCHEMA, cell=SECOND_CELL)
    lives = await mover_tenant(Tier.SCHEMA, cell=SECOND_CELL)
    await moving_runtime.provisioning.delete(deleted.slug, ACTOR)
    database = f"{moving_platform.prefix}_dedicated_{deleted.id.hex[-12:]}_0a1b2c3d"
    stranger = f"{moving_platform.prefix}_dedicated_{'0' * 12}_0a1b2c3d"
    schema = tenant_schema(deleted.id)
    async with admin_of(moving_runtime, SECOND_CELL) as admin:
        await admin.execute(f"CREATE SCHEMA {quoted(schema)}")
        await admin.execute(f"CREATE ROLE {quoted(schema)} NOLOGIN")
        for each in (database, stranger):
            await admin.execute(f"CREATE DATABASE {quoted(each)} TEMPLATE template0")
    planned = await moving_runtime.approvals.approve(SECOND_SERVER, ACTOR, dry_run=True)
    assert (deleted.slug, database) in {(each.slug, each.where) for each in planned.leftovers}
    done = await moving_runtime.approvals.approve(SECOND_SERVER, ACTOR)
    ours = {(each.where, each.removed) for each in done.leftovers if each.slug == deleted.slug}
    assert ours == {(SECOND_CELL, True), (database, True)}
    async with admin_of(moving_runtime, SECOND_CELL) as admin:
        schemas = {row["nspname"] for row in await admin.fetch("SELECT nspname FROM pg_namespace")}
        roles = {row["rolname"] for row in await admin.fetch("SELECT rolname FROM pg_roles")}
        databases = {row["datname"] for row in await admin.fetch("SELECT datname FROM pg_database")}
    assert {schema, tenant_schema(lives.id)} & schemas == {tenant_schema(lives.id)}
    assert schema not in roles
    assert {database, stranger} & databases == {stranger}, "of whom the catalog knows nothing is kept"
    async with administrator(await moving_runtime.registry.admin_url_of_server(SECOND_SERVER)) as admin:
        await admin.execute(f"DROP DATABASE {quoted(stranger)}")
