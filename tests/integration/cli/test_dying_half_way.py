"""`strata tenant create` is killed at each point of its way; afterwards there is nothing that it made.

The points are exact: a trigger (or a lock) in the database makes the process wait there until the test has killed it.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from strata.runtime import Runtime
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.tenants import NewTenant
from tests.builders.command import END_WITHIN_S, ended, environment_for, started
from tests.builders.platform import FIRST_CELL, Platform, admin_of, as_admin, new_platform, standing
from tests.servers import PostgresServer, RedisServer

if TYPE_CHECKING:
    import asyncpg

LOCK = 752_601
POLL_S = 0.02
STILL_WAITING_S = 0.3
SLUG = "halfway"


class Point(StrEnum):
    REGISTERING = "the catalog's rows are being written"
    DATABASE = "the database is being made"
    TABLES = "schema and role stand, the tables are being made"
    BUILT = "the cell is built and not yet open"
    FORGETTING = "the home is gone, the catalog is being told"
    FENCE = "the home stands, the fence is being opened"
    ACTIVATING = "everything stands, the tenant is being activated"


CELLS = {Tier.SHARED: FIRST_CELL, Tier.SCHEMA: FIRST_CELL, Tier.DEDICATED: None}
# One of each tier is quick enough for every run: the process that dies takes seconds to start.
POINTS = [
    pytest.param(Tier.SHARED, Point.REGISTERING, marks=pytest.mark.slow),
    (Tier.SHARED, Point.FENCE),
    pytest.param(Tier.SHARED, Point.ACTIVATING, marks=pytest.mark.slow),
    (Tier.SCHEMA, Point.TABLES),
    pytest.param(Tier.SCHEMA, Point.FENCE, marks=pytest.mark.slow),
    pytest.param(Tier.SCHEMA, Point.ACTIVATING, marks=pytest.mark.slow),
    pytest.param(Tier.DEDICATED, Point.DATABASE, marks=pytest.mark.slow),
    (Tier.DEDICATED, Point.BUILT),
    pytest.param(Tier.DEDICATED, Point.ACTIVATING, marks=pytest.mark.slow),
]


class Traces(msgspec.Struct, frozen=True):
    """Everything that making a tenant can leave anywhere."""

    databases: set[str]
    roles: set[str]
    schemas: set[str]
    fences: int
    revisions: int
    tenants: int
    placements: int
    cells: int


class Ground(msgspec.Struct, frozen=True):
    platform: Platform
    runtime: Runtime

    def catalog(self) -> AbstractAsyncContextManager[asyncpg.Connection]:
        return as_admin(self.platform.first, f"{self.platform.prefix}_catalog")

    async def traces(self) -> Traces:
        databases: set[str] = set()
        roles: set[str] = set()
        for server in (self.platform.first, self.platform.second):
            async with as_admin(server, "postgres") as admin:
                databases |= {
                    f"{server.name}/{row[0]}"
                    for row in await admin.fetch(
                        "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", self.platform.prefix
                    )
                }
                roles |= {
                    f"{server.name}/{row[0]}"
                    for row in await admin.fetch(
                        "SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid"
                        " JOIN pg_roles app ON app.oid = m.member WHERE app.rolname = $1",
                        self.platform.app_role,
                    )
                }
        async with admin_of(self.runtime, FIRST_CELL) as cell:
            schemas = {row[0] for row in await cell.fetch("SELECT nspname FROM pg_namespace")}
            fences = await cell.fetchval("SELECT count(*) FROM strata.fence")
            revisions = await cell.fetchval("SELECT count(*) FROM strata.revision")
        async with self.catalog() as catalog:
            counts = [
                await catalog.fetchval(f"SELECT count(*) FROM {table}") for table in ("tenant", "placement", "cell")
            ]
        return Traces(databases, roles, schemas, fences, revisions, *counts)


@pytest.fixture(scope="module")
async def ground(
    postgres_server: PostgresServer,
    second_postgres_server: PostgresServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Ground]:
    """A platform of this file alone: its databases get triggers that stop people."""
    platform = new_platform(
        postgres_server, second_postgres_server, redis_server, tmp_path_factory.mktemp("dying-half-way")
    )
    async with standing(platform) as runtime:
        yield Ground(platform, runtime)


def create(ground: Ground, tier: Tier, cwd: Path) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    cell = ["--cell", name] if (name := CELLS[tier]) else []
    return started(
        "tenant", "create", SLUG, "--tier", tier, *cell, "--json", env=environment_for(ground.platform), cwd=cwd
    )


@asynccontextmanager
async def barrier(ground: Ground, point: Point) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Who comes to the point waits there; yields what waits until somebody does. Open again at the end of the block."""
    match point:
        case Point.DATABASE:
            # CREATE DATABASE writes to pg_database; connecting only reads it.
            server = ground.platform.first
            opened = _locked(lambda: as_admin(server, "postgres"), "LOCK TABLE pg_database IN SHARE MODE")
        case Point.REGISTERING:
            opened = _trigger(ground.catalog, "placement", "INSERT")
        case Point.FORGETTING:
            opened = _trigger(ground.catalog, "placement", "DELETE")
        case Point.BUILT:
            opened = _trigger(ground.catalog, "cell", "UPDATE")
        case Point.ACTIVATING:
            opened = _trigger(ground.catalog, "tenant", "UPDATE", when="NEW.status = 'active'")
        case Point.FENCE:
            opened = _trigger(lambda: admin_of(ground.runtime, FIRST_CELL), "strata.fence", "INSERT")
        case _:
            opened = _trigger(lambda: admin_of(ground.runtime, FIRST_CELL), "strata.revision", "INSERT")
    async with opened as waiters:
        yield lambda: _until(waiters)


Connect = Callable[[], AbstractAsyncContextManager["asyncpg.Connection"]]
Waiters = Callable[[], Awaitable[int]]


async def _until(waiters: Waiters) -> None:
    async with asyncio.timeout(END_WITHIN_S):
        while not await waiters():  # noqa: ASYNC110 - the event is in PostgreSQL
            await asyncio.sleep(POLL_S)


@asynccontextmanager
async def _locked(connect: Connect, statement: str) -> AsyncIterator[Waiters]:
    async with connect() as holder, connect() as watcher:

        async def waiting() -> int:
            count: int = await watcher.fetchval(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pg_database'::regclass"
                " OR NOT granted AND locktype = 'advisory' AND ((classid::bigint << 32) | objid::bigint) = $1",
                LOCK,
            )
            return count

        transaction = holder.transaction()
        await transaction.start()
        await holder.execute(statement)
        yield waiting
        await transaction.rollback()


@asynccontextmanager
async def _trigger(connect: Connect, table: str, event: str, *, when: str = "true") -> AsyncIterator[Waiters]:
    async with connect() as admin:
        await admin.execute(
            f"CREATE FUNCTION public.wait_here() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN PERFORM pg_advisory_xact_lock({LOCK}); RETURN coalesce(NEW, OLD); END $$;"
            f"CREATE TRIGGER wait_here BEFORE {event} ON {table}"
            f" FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION public.wait_here()"
        )
    try:
        async with _locked(connect, f"SELECT pg_advisory_xact_lock({LOCK})") as waiters:
            yield waiters
    finally:
        async with connect() as admin:
            await admin.execute(f"DROP TRIGGER wait_here ON {table}; DROP FUNCTION public.wait_here()")


async def swept(ground: Ground) -> None:
    """As `strata up` does every few seconds, until the catalog knows of nothing half made."""
    async with asyncio.timeout(END_WITHIN_S):
        while True:
            await ground.runtime.provisioning.sweep()
            async with ground.catalog() as catalog:
                if not await catalog.fetchval("SELECT count(*) FROM tenant WHERE status = 'provisioning'"):
                    return
            await asyncio.sleep(POLL_S)


async def settled(ground: Ground) -> Traces:
    """What there is once the back ends of the dead process have come to their ends, too."""
    for server in (ground.platform.first, ground.platform.second):
        async with as_admin(server, "postgres") as admin:
            await _until(partial(_all_ended, admin, ground.platform.prefix))
    return await ground.traces()


async def _all_ended(admin: asyncpg.Connection, prefix: str) -> bool:
    """Nobody but the watcher is in the middle of anything of ours."""
    busy = await admin.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        " AND state <> 'idle' AND (starts_with(datname, $1) OR position($1 IN query) > 0)",
        prefix,
    )
    return not busy


@pytest.mark.parametrize(("tier", "point"), POINTS)
async def test_killed_and_swept_it_leaves_nothing(ground: Ground, tier: Tier, point: Point, tmp_path: Path) -> None:
    before = await ground.traces()
    async with create(ground, tier, tmp_path) as process, barrier(ground, point) as somebody_waits:
        await somebody_waits()
        assert (await ended(process, by=signal.SIGKILL)).code == -signal.SIGKILL
        # The sweep comes while the dead process's statement still waits in its back end, and is not done yet.
        sweeping = asyncio.create_task(swept(ground))
        await asyncio.sleep(STILL_WAITING_S)
    await sweeping
    assert await settled(ground) == before
    # The slug is free, and the next attempt knows nothing of the first.
    again = await ground.runtime.provisioning.create(NewTenant(slug=SLUG, name="Again", tier=tier), "tests")
    assert again.created
    removal = await ground.runtime.provisioning.delete(SLUG, "tests")
    assert not any(removal.remains.values())


@pytest.mark.parametrize(
    ("tier", "point"),
    [
        pytest.param(Tier.SHARED, Point.FENCE, marks=pytest.mark.slow),
        (Tier.SCHEMA, Point.TABLES),
        pytest.param(Tier.DEDICATED, Point.ACTIVATING, marks=pytest.mark.slow),
    ],
)
async def test_interrupted_it_clears_up_itself(ground: Ground, tier: Tier, point: Point, tmp_path: Path) -> None:
    before = await ground.traces()
    async with create(ground, tier, tmp_path) as process:
        async with barrier(ground, point) as somebody_waits:
            await somebody_waits()
            process.send_signal(signal.SIGINT)
            # A commit under way is not cut off; it ends, and what it committed is undone.
            await asyncio.sleep(STILL_WAITING_S)
        said = await ended(process)
    assert said.code == 130
    assert "Traceback" not in said.err
    assert await settled(ground) == before


async def test_the_next_creation_sweeps_up_after_the_last(ground: Ground, tmp_path: Path) -> None:
    before = await ground.traces()
    async with create(ground, Tier.SCHEMA, tmp_path) as process, barrier(ground, Point.ACTIVATING) as somebody_waits:
        await somebody_waits()
        await ended(process, by=signal.SIGKILL)
    other = f"other{secrets.token_hex(3)}"
    async with started("tenant", "create", other, env=environment_for(ground.platform), cwd=tmp_path) as next_one:
        assert (await ended(next_one)).code == 0
    await ground.runtime.provisioning.delete(other, "tests")
    async with ground.catalog() as catalog:
        # The closed one keeps its row, for the audit.
        await catalog.execute("DELETE FROM tenant WHERE slug = $1", other)
    assert await settled(ground) == before


@pytest.mark.parametrize(
    "tier", [*(pytest.param(each, marks=pytest.mark.slow) for each in (Tier.SHARED, Tier.SCHEMA)), Tier.DEDICATED]
)
async def test_a_deletion_that_was_killed_is_finished(ground: Ground, tier: Tier, tmp_path: Path) -> None:
    await ground.runtime.provisioning.create(NewTenant(slug=SLUG, name="Leaving", tier=tier, cell=CELLS[tier]), "tests")
    env = environment_for(ground.platform)
    async with (
        started("tenant", "delete", SLUG, "--yes", env=env, cwd=tmp_path) as process,
        barrier(ground, Point.FORGETTING) as somebody_waits,
    ):
        await somebody_waits()
        await ended(process, by=signal.SIGKILL)
    async with asyncio.timeout(END_WITHIN_S):
        while SLUG not in await ground.runtime.provisioning.sweep():  # noqa: ASYNC110 - until its lease is free
            await asyncio.sleep(POLL_S)
    traces = await settled(ground)
    assert (traces.placements, traces.fences, traces.cells) == (0, 0, 2)
    assert not any("dedicated" in database for database in traces.databases)
    assert traces.roles == set()
