"""A server is failed over to a standby that has not heard of what came last, and its tenants are let in again."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from strata.app import create_app
from strata.events import relaying
from strata.migrator import faults
from strata.migrator.approval.desk import CellApproval, ServerApproval
from strata.migrator.approval.errors import (
    ApprovalRunningError,
    CutOverUnderWayError,
    NoCellsError,
    NothingGivenUpError,
    NotPromotedError,
    StillWritableError,
    StrangeCellError,
)
from strata.migrator.approval.findings import Standing
from strata.migrator.approval.reconciliation import GAP
from strata.migrator.faults import InjectedError
from strata.migrator.phases import Phase
from strata.platform.database import addresses
from strata.platform.database.administration import administrator
from strata.platform.database.lease import lease
from strata.tenancy.audit.chain import Anchor
from strata.tenancy.catalog.audit_chain import anchor
from strata.tenancy.catalog.tables import AuditRow, ReplicaRow
from strata.tenancy.context import TenantContext
from strata.tenancy.events.tables import UsageMarkRow
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.tenants import NewTenant
from strata.tenancy.provisioning.timelines import AnotherCopyError, OldTimelineError, SameTimelineError
from tests.builders.breakable import kill, revive
from tests.builders.command import Command, environment_for
from tests.builders.events import all_told, until
from tests.builders.failing_over import FailingOver, failing_over
from tests.builders.inventory import api_client, move, stocked
from tests.builders.platform import ACTOR, FIRST_CELL, FIRST_SERVER, REGIONS, SECOND_CELL, SECOND_SERVER, admin_of
from tests.builders.standbys import REPLICA, register
from tests.servers import PostgresServer, RedisServer

# A move that nobody but this file starts takes seconds; a machine that is at its limit, minutes.
pytestmark = pytest.mark.timeout(600)
MOVEMENTS = 40
"""A sequence tells its standby 32 values ahead of those it has given out."""
COUNT = text("SELECT count(*) FROM product")


@pytest.fixture
async def pair(postgres_server: PostgresServer, redis_server: RedisServer) -> AsyncIterator[FailingOver]:
    """Directly under /tmp: PostgreSQL's account must get there when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="strata-approving-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        async with failing_over(postgres_server, redis_server, Path(folder)) as made:
            yield made


async def approve(pair: FailingOver, *, dry_run: bool = False, given_up: str | None = None) -> ServerApproval:
    url = addresses.parse(pair.standby.dsn())
    return await pair.runtime.approvals.approve(SECOND_SERVER, ACTOR, url=url, given_up=given_up, dry_run=dry_run)


def standings(cell: CellApproval) -> dict[str, Standing]:
    return {finding.slug: finding.standing for finding in cell.findings}


async def fences(pair: FailingOver) -> dict[UUID, tuple[int, str]]:
    async with admin_of(pair.runtime, SECOND_CELL) as admin:
        rows = await admin.fetch("SELECT tenant_id, epoch, state FROM strata.fence")
    return {UUID(int=row["tenant_id"].int): (row["epoch"], row["state"]) for row in rows}


async def position(pair: FailingOver) -> int:
    async with admin_of(pair.runtime, SECOND_CELL) as admin:
        last: int = await admin.fetchval("SELECT last_value FROM strata.outbox_position")
    return last


async def actions(pair: FailingOver, subject: str) -> list[str]:
    async with AsyncSession(pair.runtime.catalog_engine) as session:
        query = select(AuditRow.action).where(AuditRow.subject == subject).order_by(AuditRow.at)
        return list(await session.scalars(query))


async def receive(pair: FailingOver, context: TenantContext) -> None:
    async with pair.runtime.tenants.transaction(context) as session:
        await move(session, "receive", ("S-0", "B-0", 1))


async def mark_of(pair: FailingOver, context: TenantContext) -> int:
    async with AsyncSession(pair.runtime.catalog_engine) as session:
        return (await session.get_one(UsageMarkRow, context.id)).position


async def die() -> None:
    raise InjectedError


async def promote_again(pair: FailingOver) -> None:
    """As the refusal of a timeline that two servers have says."""
    await asyncio.to_thread(pair.standby.stop)
    (pair.standby.directory.path / "data" / "standby.signal").touch()
    await asyncio.to_thread(pair.standby.start)
    async with administrator(addresses.parse(pair.standby.dsn())) as standby:
        await standby.fetchval("SELECT pg_promote(true, 60)")


class Cast(msgspec.Struct, frozen=True):
    """Who lives on the server, and what became of them after the last that its standby heard."""

    stays: TenantContext
    own_schema: TenantContext
    deleted: TenantContext
    deleted_schema: TenantContext
    leaves: TenantContext
    arrives: TenantContext
    made: TenantContext
    made_schema: TenantContext

    @property
    def planned(self) -> dict[str, Standing]:
        return {
            self.leaves.slug: Standing.SHUT,
            self.deleted.slug: Standing.SHUT,
            self.deleted_schema.slug: Standing.SHUT,
            self.arrives.slug: Standing.LOST,
            self.made.slug: Standing.LOST,
            self.made_schema.slug: Standing.LOST,
        }


async def much_that_the_standby_has_not_heard(pair: FailingOver) -> Cast:
    """Needs a relay that runs; `alone`, who had a database of its own, is deleted too."""
    runtime = pair.runtime
    stays, deleted, leaves = [await pair.tenants(Tier.SHARED, cell=SECOND_CELL) for _ in range(3)]
    own_schema, deleted_schema = [await pair.tenants(Tier.SCHEMA, cell=SECOND_CELL) for _ in range(2)]
    arrives = await pair.tenants(Tier.SHARED, cell=FIRST_CELL)
    alone = NewTenant("alone", "Alone", Tier.DEDICATED, region=REGIONS[SECOND_SERVER])
    await runtime.provisioning.create(alone, ACTOR)
    for context in (stays, own_schema, deleted, deleted_schema, leaves, arrives):
        await stocked(runtime, context)
    await register(runtime, pair.standby)

    await pair.deafen_standby()
    for _ in range(MOVEMENTS):
        await receive(pair, stays)
    await all_told(runtime, stays)
    await anchor(runtime.catalog_engine, own_schema.id, Anchor(1000, b"\1" * 32))
    made = await pair.tenants(Tier.SHARED, cell=SECOND_CELL)
    made_schema = await pair.tenants(Tier.SCHEMA, cell=SECOND_CELL)
    for gone in (deleted.slug, deleted_schema.slug, alone.slug):
        await runtime.provisioning.delete(gone, ACTOR)
    await pair.movers.move(leaves, Tier.SHARED, cell=FIRST_CELL)
    await pair.movers.move(arrives, Tier.SHARED, cell=SECOND_CELL)
    arrived = await runtime.contexts.fresh(arrives.id)
    return Cast(stays, own_schema, deleted, deleted_schema, leaves, arrived, made, made_schema)


@pytest.mark.slow
async def test_tenants_are_served_again_without_a_restart(pair: FailingOver) -> None:
    runtime = pair.runtime
    async with relaying(runtime):
        cast = await much_that_the_standby_has_not_heard(pair)
        counted = await mark_of(pair, cast.stays)
        async with api_client(create_app(runtime), runtime, cast.stays) as client:
            assert (await client.get("/api/v1/products")).status_code == 200
            await pair.promote()
            assert (await client.get("/api/v1/products")).status_code == 503

            planned = await approve(pair, dry_run=True)
            assert (standings(planned.cells[0]), planned.replicas) == (cast.planned, [REPLICA])
            assert not planned.complete
            assert (await client.get("/api/v1/products")).status_code == 503, "nothing has been done"

            done = await approve(pair)

            async def answers() -> bool:
                return (await client.get("/api/v1/products")).status_code == 200

            await until(answers, "the process did not find the server's new address")
        [cell] = done.cells
        assert (standings(cell), cell.served) == (cast.planned, 2)
        [late, audited] = sorted(cell.behind, key=lambda each: each.slug != cast.stays.slug)
        assert (late.slug, late.events > 0) == (cast.stays.slug, True)
        assert (audited.slug, audited.audit_entries > 900) == (cast.own_schema.slug, True)
        assert await position(pair) > counted + GAP // 2, "no position is given out twice"
        await receive(pair, cast.stays)
        await all_told(runtime, cast.stays)
        assert await mark_of(pair, cast.stays) > counted, "what comes now is news to whoever had counted what is lost"
    await everybody_is_where_the_catalog_says(pair, cast, done)
    await doing_it_again_changes_nothing(pair, cast)


async def everybody_is_where_the_catalog_says(pair: FailingOver, cast: Cast, done: ServerApproval) -> None:
    runtime = pair.runtime
    assert set(await fences(pair)) == {cast.stays.id, cast.own_schema.id}
    assert {each.slug for each in done.leftovers} == {
        cast.leaves.slug,
        cast.deleted.slug,
        cast.deleted_schema.slug,
        "alone",
    }
    assert all(each.removed for each in done.leftovers)
    async with admin_of(runtime, SECOND_CELL) as admin:
        await admin.execute("SET row_security = off")
        kept = {row["id"] for row in await admin.fetch("SELECT DISTINCT tenant_id::text AS id FROM shared.product")}
        databases = {row["datname"] for row in await admin.fetch("SELECT datname FROM pg_database")}
        schemas = {row["nspname"] for row in await admin.fetch("SELECT nspname FROM pg_namespace")}
    assert kept == {str(cast.stays.id)}
    assert cast.deleted_schema.placement.schema_name not in schemas
    assert not {each for each in databases if "dedicated" in each and each.startswith(pair.platform.prefix)}
    assert await pair.lets_in(cast.arrives, cast.arrives.placement) == []
    async with runtime.tenants.reading(await runtime.contexts.fresh(cast.leaves.id)) as session:
        assert await session.scalar(COUNT) == 2
    async with AsyncSession(runtime.catalog_engine) as session:
        assert (await session.scalars(select(ReplicaRow))).all() == []
    assert "cell.approve" in await actions(pair, SECOND_CELL)
    assert {"tenant.reconcile", "tenant.clear"} <= set(await actions(pair, cast.deleted.slug))
    [said] = [each.sentence for each in done.shut_out if each.slug == cast.made.slug]
    assert f"strata tenant delete {cast.made.slug}" in said


async def doing_it_again_changes_nothing(pair: FailingOver, cast: Cast) -> None:
    before = await fences(pair), await position(pair)
    again = await pair.approve()
    assert (again.leftovers, again.replicas, again.cells[0].passed_over) == ([], [], 0)
    assert {each.slug for each in again.shut_out} == {cast.made.slug, cast.made_schema.slug, cast.arrives.slug}
    assert (await fences(pair), await position(pair)) == before
    for each in again.shut_out:
        await pair.runtime.provisioning.delete(each.slug, ACTOR)
    assert (await pair.approve()).complete


async def test_an_approval_goes_on_from_wherever_it_died(
    pair: FailingOver, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stays = await pair.tenants(Tier.SHARED, cell=SECOND_CELL)
    gone = await pair.tenants(Tier.SHARED, cell=SECOND_CELL)
    await pair.deafen_standby()
    await pair.runtime.provisioning.delete(gone.slug, ACTOR)
    await pair.promote()

    for name, value in environment_for(pair.platform).items():
        monkeypatch.setenv(name, value)
    strata = Command(capsys)

    for point in ("registered", "said", "reconciled", "recorded"):
        faults.arm(f"approving.{point}", die)
        with pytest.raises(InjectedError):
            await approve(pair)
        if point == "said":
            doctor = await strata("doctor")
            assert (doctor.code, "strata server approve two --dry-run" in doctor.out) == (1, True)
        assert (await pair.lets_in(stays, stays.placement) != []) == (point in {"reconciled", "recorded"})
    passed = await position(pair)
    assert GAP < passed < 2 * GAP, "once, however many tries it took"
    said = await strata.json("server", "approve", SECOND_SERVER, pair.standby.dsn())
    assert (said["complete"], [each["slug"] for each in said["leftovers"]]) == (True, [gone.slug])
    assert f"Cell {SECOND_CELL} is approved" in (await strata("server", "approve", SECOND_SERVER)).out
    assert (await strata("server", "approve", "nowhere", "--json")).error["code"] == "unknown-server"
    assert (await position(pair), set(await fences(pair))) == (passed, {stays.id})


@pytest.mark.slow
async def test_a_cut_over_under_way_is_waited_for(pair: FailingOver) -> None:
    """Whoever has shut the fence on the old primary may yet flip: the standby, which has it open, is no home till then."""
    context = await pair.tenants(Tier.SHARED, cell=SECOND_CELL)
    await stocked(pair.runtime, context)
    shut = asyncio.Event()

    async def stay() -> None:
        shut.set()
        await asyncio.Event().wait()

    faults.arm("cutting_over.begin", pair.deafen_standby)
    faults.arm("cutting_over.closed", stay)
    move = await pair.movers.start(context, Tier.SHARED, cell=FIRST_CELL, retention_s=3600)
    async with pair.movers.working(move):
        await shut.wait()
    await pair.promote()
    url = addresses.parse(pair.standby.dsn())
    with pytest.raises(CutOverUnderWayError) as refused:
        await pair.runtime.approvals.approve(SECOND_SERVER, ACTOR, url=url, patience_s=0.4)
    assert str(move.id) in refused.value.detail
    assert await pair.lets_in(context, context.placement) == []
    async with pair.movers.keeping():
        [cell] = (await pair.runtime.approvals.approve(SECOND_SERVER, ACTOR, url=url, patience_s=120)).cells
        assert standings(cell) in ({}, {context.slug: Standing.MOVING})
        await pair.movers.until(move, Phase.RETAINING)
    now = await pair.movers.desk.moves.get(move.id)
    both = [msgspec.structs.replace(context.placement, epoch=epoch) for epoch in (now.source_epoch, now.target_epoch)]
    elsewhere = [msgspec.structs.replace(each, cell=FIRST_CELL) for each in both]
    assert await pair.lets_in(context, *both, *elsewhere) == [FIRST_CELL]


@pytest.mark.slow
async def test_what_is_not_approved(pair: FailingOver) -> None:
    runtime, url = pair.runtime, addresses.parse(pair.standby.dsn())
    stays = await pair.tenants(Tier.SHARED, cell=SECOND_CELL)
    await pair.deafen_standby()
    with pytest.raises(NotPromotedError):
        await approve(pair)
    with pytest.raises(NoCellsError):
        await runtime.approvals.approve(
            SECOND_SERVER, ACTOR, url=await runtime.registry.admin_url_of_server(FIRST_SERVER)
        )
    async with administrator(url) as standby:
        await standby.fetchval("SELECT pg_promote(true, 60)")
    with pytest.raises(StillWritableError):
        await approve(pair)
    assert await pair.lets_in(stays, stays.placement) == [SECOND_CELL], "the old primary works on"

    await kill(pair.primary)
    async with lease(runtime.catalog_url, f"approve/{SECOND_SERVER}") as ours:
        assert ours
        with pytest.raises(ApprovalRunningError):
            await approve(pair)
    async with administrator(url.set(database=f"{pair.platform.prefix}_cell_2")) as cell:
        await cell.execute("UPDATE strata.cell SET name = 'another'")
        with pytest.raises(StrangeCellError):
            await approve(pair)
        await cell.execute("UPDATE strata.cell SET name = $1", SECOND_CELL)
    assert (await approve(pair)).complete
    await what_another_has_written_is_given_up_by_name_only(pair, stays)

    await revive(pair.primary)
    with pytest.raises(OldTimelineError):
        await runtime.approvals.approve(SECOND_SERVER, ACTOR, url=addresses.parse(pair.primary.dsn()))


async def what_another_has_written_is_given_up_by_name_only(pair: FailingOver, stays: TenantContext) -> None:
    approved = (await approve(pair, dry_run=True)).cells[0].timeline
    # As if the server with timeline 2 had been another one.
    async with admin_of(pair.runtime, SECOND_CELL) as admin:
        await admin.execute("UPDATE strata.cell SET timeline = '00000001'")
    with pytest.raises(AnotherCopyError):
        await pair.approve()
    assert await pair.lets_in(stays, stays.placement) == []
    with pytest.raises(SameTimelineError):
        await approve(pair, given_up=approved)
    await promote_again(pair)
    with pytest.raises(AnotherCopyError):
        await approve(pair, given_up="00000001")
    faults.arm("approving.reconciled", die)
    with pytest.raises(InjectedError):
        await approve(pair, given_up=approved)
    assert (await approve(pair, given_up=approved)).complete
    with pytest.raises(NothingGivenUpError):
        await approve(pair, given_up=approved)
    assert await pair.lets_in(stays, stays.placement) == [SECOND_CELL]
