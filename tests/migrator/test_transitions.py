"""A transition is one statement, and may have to wait for a row: what it goes by then is the row as it has become."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from strata.migrator.errors import SupersededError
from strata.migrator.models import MoveEventRow, MoveRow
from strata.migrator.moves import Move
from strata.migrator.phases import Phase, Wish
from strata.migrator.transitions import Advance, Flip, compare_and_set
from strata.tenancy.catalog.tables import AuditRow, PlacementRow
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.moving import Movers
from tests.builders.platform import ACTOR, SECOND_CELL, Tenantry

WAITS = text("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = :pid")


@pytest.fixture
async def tenant(mover_tenant: Tenantry) -> TenantContext:
    return await mover_tenant(Tier.SHARED)


@pytest.fixture
async def crossing(movers: Movers, tenant: TenantContext) -> AsyncIterator[Move]:
    """As after the opening of the new home, as far as the catalog knows; given up at the end."""
    move = await movers.start(tenant, Tier.SCHEMA, cell=SECOND_CELL)
    epoch = await movers.desk.moves.next_epoch()
    lease = {"worker": "a-test", "leased_until": func.now() + text("interval '1 hour'")}
    async with movers.desk.moves.writing() as session:
        row = update(MoveRow).where(MoveRow.id == move.id)
        await session.execute(row.values(phase=Phase.CUTTING_OVER, epoch=epoch, **lease))
    yield await movers.desk.moves.get(move.id)
    async with movers.desk.moves.writing() as session:
        await session.execute(row.values(phase=Phase.PENDING, epoch=None, worker=None, leased_until=None))
    await movers.desk.ask(move.id, Wish.CANCEL, ACTOR)
    await movers.work(move)


async def counts(session: AsyncSession, move: Move) -> tuple[int, int]:
    """Events of the move, and what the audit says of its tenant."""
    events = select(func.count()).where(MoveEventRow.move_id == move.id)
    audits = select(func.count()).where(AuditRow.tenant_id == move.tenant_id)
    return await session.scalar(events) or 0, await session.scalar(audits) or 0


async def flip_after(movers: Movers, move: Move, session: AsyncSession, *meanwhile: object) -> Move:
    """Flip in the session while another writes, whose transaction ends when the flip waits for it."""
    flip = Advance(Phase.RETAINING, "flipped", flip=Flip(move.target, move.source_epoch))
    pid = await session.scalar(text("SELECT pg_backend_pid()"))
    async with movers.desk.moves.writing() as other:
        for statement in meanwhile:
            await other.execute(statement)  # type: ignore[call-overload]
        flipping = asyncio.ensure_future(compare_and_set(session, move, flip))
        while not await other.scalar(WAITS, {"pid": pid}):  # noqa: ASYNC110 - another session's state
            await asyncio.sleep(0.01)
    return await flipping


async def test_what_a_person_has_wished_meanwhile_stands(movers: Movers, crossing: Move) -> None:
    wished = update(MoveRow).where(MoveRow.id == crossing.id).values(wish=Wish.COMPLETE)
    async with movers.desk.moves._sessions() as session:
        before = await counts(session, crossing)
        flipped = await flip_after(movers, crossing, session, wished)
        after = await counts(session, crossing)
        placement = await session.get_one(PlacementRow, crossing.tenant_id)
        assert (placement.epoch, placement.schema_name) == (crossing.epoch, crossing.target.schema_name)
    assert flipped == msgspec.structs.replace(
        crossing,
        phase=Phase.RETAINING,
        wish=Wish.COMPLETE,
        target_epoch=crossing.epoch,
        retained_until=flipped.retained_until,
    )
    assert [after[0] - before[0], after[1] - before[1]] == [1, 1]


async def test_nothing_is_told_of_a_flip_that_came_too_late(movers: Movers, crossing: Move) -> None:
    over = update(MoveRow).where(MoveRow.id == crossing.id)
    async with movers.desk.moves._sessions() as session:
        before = await counts(session, crossing)
        with pytest.raises(SupersededError):
            await flip_after(movers, crossing, session, over.values(attempt=crossing.attempt + 1))
        assert await counts(session, crossing) == before
    async with movers.desk.moves.writing() as session:
        await session.execute(over.values(attempt=crossing.attempt))


async def test_a_tenant_that_lives_elsewhere_by_now_is_not_moved(movers: Movers, crossing: Move) -> None:
    placed = update(PlacementRow).where(PlacementRow.tenant_id == crossing.tenant_id)
    async with movers.desk.moves._sessions() as session:
        with pytest.raises(SupersededError):
            await flip_after(movers, crossing, session, placed.values(epoch=crossing.source_epoch + 1))
    async with movers.desk.moves.writing() as session:
        assert (await session.get_one(PlacementRow, crossing.tenant_id)).epoch == crossing.source_epoch + 1
        await session.execute(placed.values(epoch=crossing.source_epoch))
