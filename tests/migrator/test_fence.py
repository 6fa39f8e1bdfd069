"""Acts of a cut-over that come too late, from a worker that slept: each finds that its attempt is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import psycopg
import pytest

from strata.migrator import fence, publications
from strata.migrator.errors import CalledOffError
from strata.migrator.models import Side
from strata.migrator.moves import Move
from strata.migrator.objects import Objects
from strata.migrator.origins import create_origin, drop_origin
from strata.migrator.phases import Wish
from strata.migrator.progress import start_progress
from strata.migrator.sessions import Reign
from strata.migrator.sites import End
from strata.migrator.slots import drop_slot
from strata.migrator.steps.removal import StillLivedInError, _guard
from strata.migrator.streams import Direction, Streams
from strata.migrator.tables import TenantTables
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.moving import Movers
from tests.builders.platform import ACTOR, SECOND_CELL, Tenantry, admin_of

OLD, NEW, LATER = 1_000_001, 1_000_002, 1_000_003
REIGN = 1_000_000
E_NEXT = 500_000
LATE = "strata_late_1_out"


@pytest.fixture
async def tenant(mover_tenant: Tenantry) -> TenantContext:
    return await mover_tenant(Tier.SHARED)


@pytest.fixture
async def cell(moving_runtime: Runtime, tenant: TenantContext) -> AsyncIterator[asyncpg.Connection]:
    async with admin_of(moving_runtime, tenant.placement.cell) as admin:
        yield admin


async def row(cell: asyncpg.Connection, tenant: TenantContext) -> tuple[str, int, int | None]:
    found = await cell.fetchrow("SELECT state, epoch, attempt FROM strata.fence WHERE tenant_id = $1", tenant.id)
    assert found is not None
    return found["state"], found["epoch"], found["attempt"]


async def stamp(cell: asyncpg.Connection, tenant: TenantContext) -> None:
    """As a worker does that takes a move."""
    await cell.execute(
        "INSERT INTO strata.move_attempt VALUES ($1, $2) ON CONFLICT (tenant_id) DO NOTHING", tenant.id, REIGN
    )


async def shut(cell: asyncpg.Connection, tenant: TenantContext, epoch: int, attempt: int) -> None:
    await stamp(cell, tenant)
    assert await fence.close_source(cell, tenant.id, epoch, attempt, reign=REIGN)


async def open_target(
    cell: asyncpg.Connection, tenant: TenantContext, epoch: int, attempt: int, *, same_cell: bool
) -> None:
    await stamp(cell, tenant)
    assert await fence.open_target(cell, tenant.id, "shared", epoch, attempt, same_cell=same_cell, reign=REIGN)


async def test_closing_late_after_the_source_was_reopened(cell: asyncpg.Connection, tenant: TenantContext) -> None:
    """The worker slept between `begin` and `close_source`: there was nothing to reopen, and yet it must not close now."""
    epoch = tenant.placement.epoch
    await fence.reopen_source(cell, tenant.id, "shared", epoch, NEW)
    with pytest.raises(CalledOffError):
        await shut(cell, tenant, epoch, OLD)
    assert await row(cell, tenant) == ("active", epoch, NEW)


async def test_reopening_late_after_another_attempt_has_closed(cell: asyncpg.Connection, tenant: TenantContext) -> None:
    epoch = tenant.placement.epoch
    await shut(cell, tenant, epoch, LATER)
    await fence.reopen_source(cell, tenant.id, "shared", epoch, NEW)
    assert await row(cell, tenant) == ("moving", epoch, LATER)


async def test_a_promoted_standby_that_was_never_at_the_epoch_is_not_reopened(
    cell: asyncpg.Connection, tenant: TenantContext
) -> None:
    epoch = tenant.placement.epoch
    await fence.retire(cell, tenant.id, epoch)
    await fence.reopen_source(cell, tenant.id, "shared", epoch + 1, NEW)
    assert (await row(cell, tenant))[0] == "moved"
    await fence.reopen_shut(cell, tenant.id, epoch, NEW)
    assert (await row(cell, tenant))[0] == "moved", "only what was shut for a moment"


async def test_what_was_shut_by_an_attempt_that_is_over_opens_again(
    cell: asyncpg.Connection, tenant: TenantContext
) -> None:
    epoch = tenant.placement.epoch
    await shut(cell, tenant, epoch, NEW)
    await fence.reopen_shut(cell, tenant.id, epoch, NEW)
    assert (await row(cell, tenant))[0] == "moving", "by the attempt that stands"
    await fence.reopen_shut(cell, tenant.id, epoch, LATER)
    assert await row(cell, tenant) == ("active", epoch, LATER)


async def test_a_lost_home_that_was_given_up_is_not_open_at_its_epoch(
    moving_runtime: Runtime, tenant: TenantContext
) -> None:
    async with admin_of(moving_runtime, SECOND_CELL) as there:
        await fence.shut_lost(there, tenant.id, "shared", E_NEXT, NEW)
        with pytest.raises(asyncpg.UniqueViolationError):
            await there.execute(
                "INSERT INTO strata.fence (tenant_id, epoch, state, schema_name) VALUES ($1, $2, 'active', 'shared')",
                tenant.id,
                E_NEXT - 1,
            )
        assert await row(there, tenant) == ("moved", E_NEXT, NEW)
        assert await fence.stands_empty(there, tenant.id, "shared")


@pytest.mark.parametrize(
    ("schema", "left_at", "by", "opens"),
    [("shared", 0, NEW, True), ("t_x", 0, NEW, False), ("shared", 1, NEW, False), ("shared", 0, OLD, False)],
    ids=["as it was left", "another home", "an earlier stay", "late"],
)
async def test_the_kept_home_opens_as_it_was_left(
    cell: asyncpg.Connection, tenant: TenantContext, schema: str, left_at: int, by: int, opens: bool
) -> None:
    epoch = tenant.placement.epoch
    await shut(cell, tenant, epoch, NEW)
    await fence.retire(cell, tenant.id, epoch)
    assert await fence.open_kept(cell, tenant.id, schema, epoch + left_at, E_NEXT, by) is opens
    assert (await row(cell, tenant))[:2] == (("active", E_NEXT) if opens else ("moved", epoch))
    await fence.shut_kept(cell, tenant.id)
    assert (await row(cell, tenant))[0] == "moved"


async def test_draining_a_fence_that_somebody_else_has_shut(cell: asyncpg.Connection, tenant: TenantContext) -> None:
    await shut(cell, tenant, tenant.placement.epoch, NEW)
    with pytest.raises(asyncpg.PostgresError) as refused:
        await fence.drain(cell, tenant.id, OLD)
    assert refused.value.sqlstate == "SM007"
    await fence.drain(cell, tenant.id, NEW)


async def test_opening_a_target_late(movers: Movers, tenant: TenantContext, cell: asyncpg.Connection) -> None:
    async with admin_of(movers.runtime, SECOND_CELL) as target:
        await open_target(target, tenant, E_NEXT + 1, NEW, same_cell=False)
        with pytest.raises(CalledOffError):
            await open_target(target, tenant, E_NEXT, OLD, same_cell=False)
        assert await row(target, tenant) == ("active", E_NEXT + 1, NEW)
    with pytest.raises(CalledOffError):
        # In one cell the row is the source's, and it is not shut.
        await open_target(cell, tenant, E_NEXT, NEW, same_cell=True)


async def test_retiring_finds_the_epoch_that_is_over_and_no_other(
    cell: asyncpg.Connection, tenant: TenantContext
) -> None:
    await fence.retire(cell, tenant.id, E_NEXT)
    assert (await row(cell, tenant))[0] == "active"


@pytest.fixture
async def move(movers: Movers, tenant: TenantContext) -> AsyncIterator[Move]:
    """One that has begun; given up at the end, so that no worker of another test takes it up."""
    made = await movers.start(tenant, Tier.SCHEMA, cell=SECOND_CELL)
    yield made
    await movers.desk.ask(made.id, Wish.CANCEL, ACTOR)
    await movers.work(made)


@pytest.fixture
async def end(movers: Movers, move: Move) -> End:
    """Its source."""
    found = await movers.keeper()._around.sites.source(move)
    assert await found.stamp()
    return found


async def test_an_attempt_that_is_over_writes_nothing(movers: Movers, tenant: TenantContext, end: End) -> None:
    async with admin_of(movers.runtime, tenant.placement.cell) as admin:
        await admin.execute("UPDATE strata.move_attempt SET attempt = attempt + 1 WHERE tenant_id = $1", tenant.id)
    assert not await end.stamp()
    with pytest.raises(asyncpg.PostgresError) as refused:
        async with end.writing():
            pass
    assert refused.value.sqlstate == "SM007"


MADE_OR_DROPPED: dict[str, Callable[[End, TenantTables, Reign], Awaitable[object]]] = {
    "publication": lambda end, tables, reign: publications.create(end.home, LATE, tables, reign),
    "origin": lambda end, _, reign: create_origin(end.dsn, LATE, reign),
    "progress": lambda end, _, reign: start_progress(end.dsn, LATE, end.attempt, 1, reign),  # type: ignore[arg-type]
    "slot dropped": lambda end, _, reign: drop_slot(end.dsn, LATE, reign),
    "publication dropped": lambda end, _, reign: publications.drop(end.dsn, LATE, reign),
    "origin dropped": lambda end, _, reign: drop_origin(end.dsn, LATE, reign),
}


@pytest.mark.parametrize("what", MADE_OR_DROPPED)
async def test_an_attempt_that_is_over_makes_and_drops_nothing(movers: Movers, move: Move, end: End, what: str) -> None:
    """The names are those of whoever has the move now."""
    tables = await Streams(Objects(movers.desk.moves), dict.fromkeys(Side, end)).tables(Direction.OUT)
    with pytest.raises((asyncpg.PostgresError, psycopg.Error)) as refused:
        await MADE_OR_DROPPED[what](end, tables, Reign(move.tenant_id, end.attempt - 1))
    assert getattr(refused.value, "sqlstate", None) == "SM007"


async def test_nothing_is_deleted_where_the_tenant_lives(end: End) -> None:
    async with end.admin() as connection, connection.transaction():
        with pytest.raises(StillLivedInError):
            await _guard(connection, end)


async def test_a_rehearsal_changes_nothing(cell: asyncpg.Connection, movers: Movers, tenant: TenantContext) -> None:
    epoch = tenant.placement.epoch
    await stamp(cell, tenant)
    assert await fence.close_source(cell, tenant.id, epoch, NEW, reign=REIGN, rehearse=True)
    await fence.drain(cell, tenant.id, NEW, rehearse=True)
    assert (await row(cell, tenant))[:2] == ("active", epoch)
    await shut(cell, tenant, epoch, NEW)
    assert await fence.open_target(cell, tenant.id, "shared", E_NEXT, NEW, same_cell=True, reign=REIGN, rehearse=True)
    assert (await row(cell, tenant))[:2] == ("moving", epoch)
    async with admin_of(movers.runtime, SECOND_CELL) as target:
        await stamp(target, tenant)
        assert await fence.open_target(
            target, tenant.id, "shared", E_NEXT, NEW, same_cell=False, reign=REIGN, rehearse=True
        )
        assert await target.fetch("SELECT FROM strata.fence WHERE tenant_id = $1", tenant.id) == []


async def test_an_attempt_that_is_over_neither_shuts_nor_opens(cell: asyncpg.Connection, tenant: TenantContext) -> None:
    await stamp(cell, tenant)
    epoch = tenant.placement.epoch
    for act in (
        fence.close_source(cell, tenant.id, epoch, NEW, reign=REIGN - 1),
        fence.open_target(cell, tenant.id, "shared", E_NEXT, NEW, same_cell=True, reign=REIGN - 1),
    ):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await act
        assert refused.value.sqlstate == "SM007"
    assert (await row(cell, tenant))[:2] == ("active", epoch)


WHO_WAITED: dict[str, tuple[str, str]] = {
    "a later attempt has closed": (
        "UPDATE strata.fence SET state = 'moving', attempt = 1000003 WHERE tenant_id = $1",
        "called off",
    ),
    "the tenant was closed to standbys": (
        "UPDATE strata.fence SET standby_closed_epoch = epoch WHERE tenant_id = $1",
        "shut",
    ),
    "another has taken the move": (
        "UPDATE strata.move_attempt SET attempt = attempt + 1 WHERE tenant_id = $1",
        "SM007",
    ),
}


@pytest.mark.parametrize("what", WHO_WAITED)
async def test_who_has_waited_for_a_row_goes_by_what_it_says_then(
    moving_runtime: Runtime, cell: asyncpg.Connection, tenant: TenantContext, what: str
) -> None:
    """The statement began before: what it sees of other rows is older."""
    statement, outcome = WHO_WAITED[what]
    await stamp(cell, tenant)
    async with admin_of(moving_runtime, tenant.placement.cell) as late:
        async with cell.transaction():
            await cell.execute(statement, tenant.id)
            closing = asyncio.ensure_future(
                fence.close_source(late, tenant.id, tenant.placement.epoch, NEW, reign=REIGN)
            )
            while not await cell.fetchval(_WAITS, late.get_server_pid()):  # noqa: ASYNC110 - another session's state
                await asyncio.sleep(0.01)
        try:
            assert await closing
            became = "shut"
        except CalledOffError:
            became = "called off"
        except asyncpg.PostgresError as refused:
            became = refused.sqlstate
    assert became == outcome
    assert (await row(cell, tenant))[2] == {"shut": NEW, "called off": LATER, "SM007": None}[outcome]


_WAITS = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
