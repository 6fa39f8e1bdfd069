"""A home that is lost, and who accepts that: killed anywhere, asked twice, asked wrongly; and where neither home is there."""

from __future__ import annotations

import asyncio
import signal

import msgspec
import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from strata.app import create_app
from strata.migrator import faults
from strata.migrator.errors import AmbiguousMoveError, HomeLostError, OtherHomeGoneError, WishRefusedError
from strata.migrator.faults import InjectedError
from strata.migrator.moves import Move, Place
from strata.migrator.phases import Phase, Wish
from strata.tenancy.catalog.tables import AuditRow
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.exclusion import TenantBusyError
from tests.builders.command import Command, environment_for
from tests.builders.http import client_of, token_for, token_for_staff
from tests.builders.inventory import stocked
from tests.builders.lost_homes import forget, with_a_home_lost
from tests.builders.move_worker import END_WITHIN_S, move_worker
from tests.builders.moving import Movers
from tests.builders.open_homes import both, open_homes
from tests.builders.platform import ACTOR, FIRST_CELL, SECOND_CELL, SECOND_SERVER, Platform, Tenantry, admin_of

COUNT = text("SELECT count(*) FROM product")
SKUS = 4
KILLED = [
    ("failed.opened", Tier.SHARED, {"cell": SECOND_CELL}),
    # One row for both homes.
    pytest.param("failed.opened", Tier.SCHEMA, {}, marks=pytest.mark.slow),
]


@pytest.fixture
def typed(moving_platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    for name, value in environment_for(moving_platform).items():
        monkeypatch.setenv(name, value)
    return Command(capsys)


async def ended(movers: Movers, move: Move, phase: Phase) -> Move:
    """Worked on in this process until it has ended, or rests."""
    async with movers.keeping(), asyncio.timeout(120):
        while not (now := await movers.desk.moves.get(move.id)).finished:
            assert now.phase is not Phase.FAILED or now.wish is not None, now.failure
            await asyncio.sleep(0.05)
    assert now.phase is phase
    return now


async def lives_on(movers: Movers, context: TenantContext, failed: Move, now: Move) -> None:
    """In the home that was left, there alone, with all that it had; and nothing of the move is left."""
    fresh = await movers.runtime.contexts.fresh(context.id)
    assert (fresh.placement.cell, fresh.placement.epoch) == (failed.source.cell, now.epoch)
    moves = [failed, now]
    if failed.target.tier is Tier.DEDICATED:
        moves = [in_one_home(each, failed.source) for each in moves]
    assert set(await open_homes(movers.runtime, context, *both(*moves))) == {failed.source.cell}
    async with movers.runtime.tenants.reading(fresh) as session:
        assert await session.scalar(COUNT) == SKUS
    assert await movers.remains(failed.id) == {}
    assert await movers.homes_of(context) == {failed.source.cell: [failed.source.schema_name]}


def in_one_home(move: Move, place: Place) -> Move:
    """A dedicated home has gone with its cell, and nobody can ask there any more."""
    return msgspec.structs.replace(move, source=place, target=place)


async def said(movers: Movers, context: TenantContext, action: str) -> list[AuditRow]:
    async with AsyncSession(movers.runtime.catalog_engine) as session:
        query = select(AuditRow).where(AuditRow.subject == context.slug, AuditRow.action == action)
        return list(await session.scalars(query))


async def fenced(movers: Movers, context: TenantContext, cell: str) -> tuple[str, int]:
    async with admin_of(movers.runtime, cell) as admin:
        [row] = await admin.fetch("SELECT state, epoch FROM strata.fence WHERE tenant_id = $1", context.id)
    return row["state"], row["epoch"]


@pytest.mark.parametrize(("point", "to", "place"), KILLED)
async def test_killed_while_a_loss_is_accepted(
    movers: Movers, moving_platform: Platform, mover_tenant: Tenantry, point: str, to: Tier, place: dict[str, str]
) -> None:
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, skus=SKUS)
    failed = await with_a_home_lost(movers, context, to, cell=place.get("cell"), server=place.get("server"))
    await movers.desk.ask(failed.id, Wish.ACCEPT_LOSS, ACTOR)
    async with (
        move_worker(moving_platform, faults=f"{point}=kill", tenant=context.id) as worker,
        asyncio.timeout(END_WITHIN_S),
    ):
        assert await worker.wait() == -signal.SIGKILL
    now = await ended(movers, failed, Phase.ROLLED_BACK)
    await lives_on(movers, context, failed, now)


async def test_two_operators_and_what_is_said_of_it(movers: Movers, mover_tenant: Tenantry, typed: Command) -> None:
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, skus=SKUS)
    failed = await with_a_home_lost(movers, context, Tier.SHARED, cell=SECOND_CELL)
    before = (await movers.desk.moves.get(failed.id), await movers.desk.moves.events(failed.id))
    shown = await typed.json("migrate", "accept-loss", context.slug, "--dry-run")
    assert (shown["loss"]["lost"], shown["loss"]["lives_on_in"]) == (str(failed.target), str(failed.source))
    told = await typed("migrate", "accept-loss", str(failed.id), "--dry-run")
    assert f"To accept it: strata migrate accept-loss {failed.id}" in told.out
    assert (await movers.desk.moves.get(failed.id), await movers.desk.moves.events(failed.id)) == before
    assert await said(movers, context, "tenant.move.accept-loss") == []

    path = f"/staff/v1/migrations/{failed.id}/accept-loss"
    app = create_app(movers.runtime)
    as_tenant, as_staff = token_for(movers.runtime.tokens, context), token_for_staff(movers.runtime.tokens)
    for host, token, statuses in (
        ("console.localhost", None, {401}),
        ("console.localhost", as_tenant, {403}),
        (f"{context.slug}.localhost", as_tenant, {403, 404}),
        (f"{context.slug}.localhost", as_staff, {403, 404}),
    ):
        async with client_of(app, host, token=token) as client:
            assert (await client.post(path)).status_code in statuses, host
    assert (await movers.desk.moves.get(failed.id)).wish is None
    async with client_of(app, "console.localhost", token=as_staff) as staff:
        by_api, by_command = await asyncio.gather(
            staff.post(path), typed.json("migrate", "accept-loss", str(failed.id))
        )
    assert by_api.status_code == 202
    assert by_command["move"]["wish"] == "accept-loss"
    now = await ended(movers, failed, Phase.ROLLED_BACK)
    await lives_on(movers, context, failed, now)
    events = await movers.desk.moves.events(failed.id)
    assert [event.what for event in events].count("loss accepted") == 1
    entries = await said(movers, context, "tenant.move.accept-loss")
    assert {entry.actor for entry in entries} >= {"staff:staff@tests"}
    assert len(entries) == 2
    assert all(entry.detail["loss"]["lost"] == str(failed.target) for entry in entries)


async def test_a_beginning_that_several_ids_have_names_none_of_them(movers: Movers, mover_tenant: Tenantry) -> None:
    moves = [await movers.start(await mover_tenant(Tier.SHARED), Tier.SCHEMA) for _ in range(2)]
    # The time stands first in an id: these digits change once in some minutes.
    with pytest.raises(AmbiguousMoveError, match="strata migrate list"):
        await movers.desk.find(str(moves[0].id)[:6])
    for move in moves:
        assert (await movers.desk.find(str(move.id)[:-4])).id == move.id
        assert (await movers.desk.find(move.slug)).id == move.id
        await movers.desk.ask(move.id, Wish.CANCEL, ACTOR)
        await movers.work(move)


async def test_what_fails_while_a_loss_is_accepted_leaves_the_tenant_closed_and_says_so(
    movers: Movers, mover_tenant: Tenantry
) -> None:
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, skus=SKUS)
    failed = await with_a_home_lost(movers, context, Tier.SHARED, cell=SECOND_CELL)

    async def die() -> None:
        raise InjectedError

    faults.arm("failed.opened", die)
    await movers.desk.ask(failed.id, Wish.ACCEPT_LOSS, ACTOR)
    again = await movers.work(failed)
    assert again.failure is not None
    assert "is closed" in again.failure.tenant
    assert again.failure.next == f"strata migrate retry {failed.id}"
    state, epoch = await fenced(movers, context, SECOND_CELL)
    assert (state, epoch > (failed.target_epoch or 0)) == ("moved", True), "nobody brings the lost home's old row back"
    assert (await fenced(movers, context, FIRST_CELL))[0] == "active"
    await movers.desk.ask(failed.id, Wish.RETRY, ACTOR)
    retried = await movers.work(failed)
    assert (await fenced(movers, context, FIRST_CELL))[0] == "moved"
    assert retried.failure is not None
    assert retried.failure.code == HomeLostError.code
    await movers.desk.ask(failed.id, Wish.ACCEPT_LOSS, ACTOR)
    await lives_on(movers, context, failed, await movers.work(failed))


@pytest.mark.slow
async def test_neither_home_is_there_and_the_tenant_is_given_up(
    movers: Movers, mover_tenant: Tenantry, typed: Command
) -> None:
    """The one it left has gone with its database, the one it lives in with its row."""
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, skus=SKUS)
    await movers.move(context, Tier.DEDICATED, server=SECOND_SERVER)
    context = await movers.runtime.contexts.fresh(context.id)

    async def drop() -> None:
        await movers.runtime.engines.forget(context.placement.cell)
        await drop_database(movers, context.placement.cell)

    failed = await with_a_home_lost(movers, context, Tier.SHARED, meanwhile=drop, cell=FIRST_CELL)
    with pytest.raises(WishRefusedError):
        await movers.desk.ask(failed.id, Wish.CANCEL, ACTOR)
    await movers.desk.ask(failed.id, Wish.ACCEPT_LOSS, ACTOR)
    gone = await movers.work(failed)
    assert gone.failure is not None
    assert gone.failure.code == OtherHomeGoneError.code
    assert f"strata migrate cancel {failed.id}" in gone.failure.next
    told = await typed("migrate", "accept-loss", context.slug, "--dry-run")
    assert "Neither" in told.out
    assert "To accept it" not in told.out
    with pytest.raises(TenantBusyError):
        await movers.runtime.provisioning.delete(context.slug, ACTOR)
    await movers.desk.ask(failed.id, Wish.CANCEL, ACTOR)
    given_up = await movers.work(failed)
    assert given_up.phase is Phase.COMPLETED
    assert "given up" in {event.what for event in await movers.desk.moves.events(failed.id)}
    assert (await movers.runtime.contexts.fresh(context.id)).placement.epoch == failed.target_epoch
    assert await open_homes(movers.runtime, context, *both(in_one_home(failed, failed.target))) == []
    removal = await movers.runtime.provisioning.delete(context.slug, ACTOR)
    assert not any(removal.remains.values())


async def test_a_tenant_is_not_given_up_once_a_home_is_there_again(movers: Movers, mover_tenant: Tenantry) -> None:
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, skus=SKUS)
    failed = await with_a_home_lost(movers, context, Tier.SHARED, cell=SECOND_CELL)
    row = await forget(movers.runtime, context, FIRST_CELL)
    await movers.desk.ask(failed.id, Wish.ACCEPT_LOSS, ACTOR)
    gone = await movers.work(failed)
    assert gone.failure is not None
    assert gone.failure.code == OtherHomeGoneError.code
    await restore(movers, FIRST_CELL, *row)
    await movers.desk.ask(failed.id, Wish.CANCEL, ACTOR)
    back = await movers.work(failed)
    assert back.failure is not None
    assert (back.phase, back.failure.code) == (Phase.FAILED, HomeLostError.code)
    await movers.desk.ask(failed.id, Wish.ACCEPT_LOSS, ACTOR)
    await lives_on(movers, context, failed, await movers.work(failed))


async def test_what_was_to_be_given_up_goes_on_when_the_lost_home_is_back(
    movers: Movers, mover_tenant: Tenantry
) -> None:
    """The other one went when an acceptance had opened it, and is back as it was then."""
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, skus=SKUS)
    failed = await with_a_home_lost(movers, context, Tier.SHARED, cell=SECOND_CELL)
    opened = asyncio.Event()

    async def stay() -> None:
        opened.set()
        await asyncio.Event().wait()

    faults.arm("failed.opened", stay)
    await movers.desk.ask(failed.id, Wish.ACCEPT_LOSS, ACTOR)
    async with movers.working(failed):
        await opened.wait()
    row = await forget(movers.runtime, context, FIRST_CELL)
    gone = await movers.work(failed)
    assert gone.failure is not None
    assert gone.failure.code == OtherHomeGoneError.code
    await restore(movers, FIRST_CELL, *row)
    await forget(movers.runtime, context, SECOND_CELL)
    await restore(movers, SECOND_CELL, context.id, failed.target_epoch, "active", failed.target.schema_name, None)
    await movers.desk.ask(failed.id, Wish.CANCEL, ACTOR)
    async with movers.working(failed):
        await movers.told(failed, "tried again")
        assert (await fenced(movers, context, FIRST_CELL))[0] == "moved"
        assert (await movers.until(failed, Phase.RETAINING)).wish is None
        await movers.desk.ask(failed.id, Wish.COMPLETE, ACTOR)
        await movers.until(failed, Phase.COMPLETED)
    assert await movers.remains(failed.id) == {}
    assert await movers.homes_of(context) == {SECOND_CELL: ["shared"]}


async def test_a_home_that_goes_when_a_way_back_was_called_off_is_said_to_be_lost(
    movers: Movers, mover_tenant: Tenantry
) -> None:
    """Whoever takes the move over would open its fence first, and there is none."""
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, skus=SKUS)
    called_off = asyncio.Event()

    async def die() -> None:
        raise InjectedError

    async def stay() -> None:
        called_off.set()
        await asyncio.Event().wait()

    faults.arm("rolling_back.closed", die, context.id)
    faults.arm("rolling_back.called_off", stay, context.id)
    move = await movers.start(context, Tier.DEDICATED, server=SECOND_SERVER, retention_s=3600)
    async with movers.working(move):
        await movers.until(move, Phase.RETAINING)
        await movers.desk.ask(move.id, Wish.ROLL_BACK, ACTOR)
        await called_off.wait()
    await movers.runtime.engines.forget(move.target.cell)
    await drop_database(movers, move.target.cell)
    async with asyncio.timeout(30):
        failed = await movers.work(move)
    assert failed.failure is not None
    assert failed.failure.code == HomeLostError.code
    await movers.desk.ask(move.id, Wish.ACCEPT_LOSS, ACTOR)
    await lives_on(movers, context, failed, await movers.work(move))


async def restore(movers: Movers, cell: str, *row: object) -> None:
    """By hand."""
    async with admin_of(movers.runtime, cell) as admin:
        await admin.execute(
            "INSERT INTO strata.fence (tenant_id, epoch, state, schema_name, attempt) VALUES ($1, $2, $3, $4, $5)", *row
        )


async def drop_database(movers: Movers, cell: str) -> None:
    async with admin_of(movers.runtime, cell) as admin:
        await admin.execute(
            "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots"
            " WHERE database = current_database() AND active"
        )
        await admin.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
        )
        database = await admin.fetchval("SELECT current_database()")
    async with admin_of(movers.runtime, SECOND_CELL) as admin:
        await admin.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
