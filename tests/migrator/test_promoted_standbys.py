"""A standby promoted in mid-move: the tenant is let in at one place at most, and nothing is concluded from what is missing."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from strata.events import relaying
from strata.inventory.products.repository import ensure_products
from strata.migrator import faults
from strata.migrator.errors import FailedOverError, HomeLostError, OtherHomeGoneError, WishRefusedError
from strata.migrator.faults import InjectedError
from strata.migrator.moves import Move
from strata.migrator.phases import Phase, Wish
from strata.tenancy.catalog.tables import AuditRow
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import CellClosedError
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.exclusion import TenantBusyError
from strata.tenancy.provisioning.tenants import NewTenant
from tests.builders.failing_over import FailingOver, failing_over
from tests.builders.inventory import stocked
from tests.builders.open_homes import both
from tests.builders.platform import ACTOR, FIRST_CELL, REGIONS, SECOND_CELL, SECOND_SERVER, admin_of
from tests.servers import PostgresServer, RedisServer

# Each makes a server, its copy and a platform, and kills the one for the other.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
COUNT = text("SELECT count(*) FROM product")
SKUS = 12


@pytest.fixture
async def pair(postgres_server: PostgresServer, redis_server: RedisServer) -> AsyncIterator[FailingOver]:
    """Directly under /tmp: PostgreSQL's account must get there when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="strata-failing-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        async with failing_over(postgres_server, redis_server, Path(folder)) as made, relaying(made.runtime):
            yield made


async def products(pair: FailingOver, context: TenantContext) -> int:
    now = await pair.runtime.contexts.fresh(context.id)
    async with pair.runtime.tenants.reading(now) as session:
        count: int = await session.scalar(COUNT)
        return count


async def waits_for_approval(pair: FailingOver, move: Move) -> None:
    said = FailedOverError(SECOND_CELL).detail
    async with asyncio.timeout(300):
        while (await pair.movers.desk.moves.get(move.id)).progress.get("waiting") != said:  # noqa: ASYNC110 - it is a row
            await asyncio.sleep(0.1)


async def product_came_back(pair: FailingOver, context: TenantContext, count: int) -> None:
    async with asyncio.timeout(300), admin_of(pair.runtime, FIRST_CELL) as admin:
        while await admin.fetchval("SELECT count(*) FROM shared.product WHERE tenant_id = $1", context.id) != count:  # noqa: ASYNC110 - they are rows
            await asyncio.sleep(0.05)


async def add_product(pair: FailingOver, context: TenantContext, sku: str) -> None:
    async with pair.runtime.tenants.transaction(await pair.runtime.contexts.fresh(context.id)) as session:
        await ensure_products(session, [(sku, sku)], sku_limit=None)


async def lost_behind_a_flip(
    pair: FailingOver, context: TenantContext, to: Tier, flip: str, after: str, **place: str
) -> Move:
    """A move of server two's, whose standby hears of nothing from `flip` on, and is promoted in the phase `after` it."""
    failed_over = asyncio.Event()

    async def fail_over() -> None:
        await pair.fail_over()
        failed_over.set()

    faults.arm(f"{flip}.begin", pair.deafen_standby, context.id)
    faults.arm(f"{after}.begin", fail_over, context.id)
    move = await pair.movers.start(context, to, retention_s=3600, **place)  # type: ignore[arg-type]
    async with pair.movers.keeping():
        if after == Phase.WITHDRAWING:
            await pair.movers.until(move, Phase.RETAINING)
            await pair.movers.desk.ask(move.id, Wish.ROLL_BACK, ACTOR)
        await failed_over.wait()
        await pair.approve()
        return await has_failed(pair, move)


async def accepted(pair: FailingOver, move: Move, ended: Phase) -> Move:
    await pair.movers.desk.ask(move.id, Wish.ACCEPT_LOSS, ACTOR)
    async with pair.movers.keeping():
        async with asyncio.timeout(300):
            while not (now := await pair.movers.desk.moves.get(move.id)).finished:
                assert now.phase is not Phase.FAILED or now.wish is not None, now.failure
                await asyncio.sleep(0.1)
    assert now.phase is ended
    assert await pair.movers.remains(move.id) == {}
    return now


async def audited(pair: FailingOver, slug: str, action: str) -> list[AuditRow]:
    async with AsyncSession(pair.runtime.catalog_engine) as session:
        query = select(AuditRow).where(AuditRow.subject == slug, AuditRow.action == action)
        return list(await session.scalars(query))


async def has_failed(pair: FailingOver, move: Move) -> Move:
    async with asyncio.timeout(300):
        while (now := await pair.movers.desk.moves.get(move.id)).phase is not Phase.FAILED:  # noqa: ASYNC110 - it is a row
            await asyncio.sleep(0.1)
    return now


@pytest.mark.parametrize(
    ("point", "here", "there"),
    [
        # The source, which has not heard that its fence was shut; before the flip.
        ("cutting_over.closed", SECOND_CELL, FIRST_CELL),
        # The target, which has not heard that its fence is open; before the flip.
        pytest.param("cutting_over.opened", FIRST_CELL, SECOND_CELL),
        pytest.param("copying.slot", SECOND_CELL, FIRST_CELL),
        pytest.param("copying.slot", FIRST_CELL, SECOND_CELL),
    ],
)
async def test_promoted_before_the_flip(pair: FailingOver, point: str, here: str, there: str) -> None:
    context = await pair.tenants(Tier.SHARED, cell=here)
    await stocked(pair.runtime, context, skus=SKUS)
    failed_over = asyncio.Event()

    async def fail_over() -> None:
        await pair.fail_over()
        failed_over.set()

    async def deafen() -> None:
        await pair.deafen_standby()
        faults.arm(point, fail_over)

    # Deaf before the first act of that phase, and so before the fence row that says `moving`.
    faults.arm(f"{point.partition('.')[0]}.begin", deafen)
    move = await pair.movers.start(context, Tier.SHARED, cell=there, retention_s=3600)
    async with pair.movers.keeping():
        await failed_over.wait()
        await waits_for_approval(pair, move)
        now = await pair.movers.desk.moves.get(move.id)
        home = [FIRST_CELL] if here == FIRST_CELL else []
        assert await pair.lets_in(context, *both(now)) == home
        if here == SECOND_CELL:
            with pytest.raises(CellClosedError):
                await products(pair, context)
        await pair.approve()
        await pair.movers.until(move, Phase.RETAINING)
    now = await pair.movers.desk.moves.get(move.id)
    assert await pair.lets_in(context, *both(now)) == [there]
    assert await products(pair, context) == SKUS


async def test_a_source_promoted_after_the_flip_that_has_not_heard_of_it(pair: FailingOver) -> None:
    context = await pair.tenants(Tier.SHARED, cell=SECOND_CELL)
    await stocked(pair.runtime, context, skus=SKUS)
    failed_over = asyncio.Event()

    async def fail_over() -> None:
        await pair.fail_over()
        failed_over.set()

    faults.arm("cutting_over.begin", pair.deafen_standby, context.id)
    faults.arm("retaining.begin", fail_over, context.id)
    move = await pair.movers.start(context, Tier.SHARED, cell=FIRST_CELL, retention_s=3600)
    async with pair.movers.keeping():
        await failed_over.wait()
        # By its own row the promoted standby is the tenant's home: that is mended before anybody can approve it.
        await waits_for_approval(pair, move)
        now = await pair.movers.desk.moves.get(move.id)
        assert await pair.lets_in(context, *both(now)) == [FIRST_CELL]
        assert await products(pair, context) == SKUS
        await pair.approve()
        assert await pair.lets_in(context, *both(now)) == [FIRST_CELL]
        assert (await pair.movers.desk.moves.get(move.id)).phase is Phase.RETAINING
    assert await products(pair, context) == SKUS


async def test_a_target_promoted_after_the_flip_that_has_not_heard_of_the_arrival(pair: FailingOver) -> None:
    context = await pair.tenants(Tier.SHARED, cell=FIRST_CELL)
    await stocked(pair.runtime, context, skus=SKUS)
    failed_over = asyncio.Event()

    async def fail_over() -> None:
        await pair.fail_over()
        failed_over.set()

    faults.arm("cutting_over.begin", pair.deafen_standby, context.id)
    faults.arm("retaining.begin", fail_over, context.id)
    move = await pair.movers.start(context, Tier.SHARED, cell=SECOND_CELL, retention_s=0)
    async with pair.movers.keeping():
        await failed_over.wait()
        await waits_for_approval(pair, move)
        now = await pair.movers.desk.moves.get(move.id)
        assert now.phase is Phase.RETAINING, "nothing is concluded before a person has approved the server"
        assert await pair.lets_in(context, *both(now)) == []
        await pair.approve()
        now = await has_failed(pair, move)
    assert now.failure is not None
    assert now.failure.code == HomeLostError.code
    assert "is closed" in now.failure.tenant
    assert await pair.lets_in(context, *both(now)) == []
    # The old home holds everything up to the flip, and the promoted standby nothing from behind it.
    homes = await pair.movers.homes_of(context)
    assert FIRST_CELL in homes
    assert now.failure.next.startswith(f"strata migrate accept-loss {move.id}")
    assert "not registered" in now.failure.next, "that would take from everybody else what they have written here since"


async def test_a_loss_that_is_accepted_and_what_had_come_back_of_it(pair: FailingOver) -> None:
    context = await pair.tenants(Tier.SHARED, cell=FIRST_CELL)
    await stocked(pair.runtime, context, skus=SKUS)
    faults.arm("cutting_over.begin", pair.deafen_standby, context.id)
    move = await pair.movers.start(context, Tier.SHARED, cell=SECOND_CELL, retention_s=3600)
    async with pair.movers.keeping():
        await pair.movers.until(move, Phase.RETAINING)
        await add_product(pair, context, "came-back")
        await product_came_back(pair, context, SKUS + 1)
    await add_product(pair, context, "lost")
    # Asked before anybody knew: it is no word about what has failed.
    await pair.movers.desk.ask(move.id, Wish.ROLL_BACK, ACTOR)
    await pair.fail_over()
    [shut_out] = (await pair.approve()).shut_out
    assert str(move.id) in shut_out.sentence
    async with pair.movers.keeping():
        failed = await has_failed(pair, move)
    assert (failed.failed_in, failed.wish) == (Phase.RETAINING, None)
    loss = await pair.movers.desk.loss(failed)
    assert loss is not None
    assert (loss.lost, loss.lives_on_in) == (str(move.target), str(move.source))
    assert loss.came_back is not None
    assert loss.came_back.position in loss.sentence
    with pytest.raises(WishRefusedError, match="accept-loss"):
        await pair.movers.desk.ask(move.id, Wish.ROLL_BACK, ACTOR)
    with pytest.raises(TenantBusyError):
        await pair.runtime.provisioning.delete(context.slug, ACTOR)

    now = await accepted(pair, move, Phase.ROLLED_BACK)
    assert await products(pair, context) == SKUS + 1
    placement = (await pair.runtime.contexts.fresh(context.id)).placement
    assert (placement.cell, placement.epoch) == (FIRST_CELL, now.epoch)
    assert placement.epoch > (failed.target_epoch or 0)
    assert await pair.lets_in(context, *both(failed), *both(now)) == [FIRST_CELL]
    assert await pair.movers.homes_of(context) == {FIRST_CELL: ["shared"]}
    [entry] = await audited(pair, context.slug, "tenant.move.accept-loss")
    assert (entry.actor, entry.detail["loss"]["came_back"]["position"]) == (ACTOR, loss.came_back.position)
    await pair.movers.move(await pair.runtime.contexts.fresh(context.id), Tier.SHARED, cell=SECOND_CELL)
    assert await products(pair, context) == SKUS + 1


@pytest.mark.parametrize(
    ("tier", "cell", "to", "place", "flip", "after", "ended"),
    [
        # Both homes are in the cell, and one row is the fence of both.
        (Tier.SHARED, SECOND_CELL, Tier.SCHEMA, {}, "cutting_over", "retaining", Phase.ROLLED_BACK),
        # The home of before has lost the tenant that came back: it stays in the new one.
        (Tier.SCHEMA, SECOND_CELL, Tier.SHARED, {"cell": FIRST_CELL}, "rolling_back", "withdrawing", Phase.COMPLETED),
        # The standby has not even got the database.
        (
            Tier.SHARED,
            FIRST_CELL,
            Tier.DEDICATED,
            {"server": SECOND_SERVER},
            "preparing",
            "retaining",
            Phase.ROLLED_BACK,
        ),
    ],
)
async def test_a_loss_is_accepted_of_any_home(
    pair: FailingOver,
    tier: Tier,
    cell: str,
    to: Tier,
    place: dict[str, str],
    flip: str,
    after: str,
    ended: Phase,
) -> None:
    context = await pair.tenants(tier, cell=cell)
    await stocked(pair.runtime, context, skus=SKUS)
    failed = await lost_behind_a_flip(pair, context, to, flip, after, **place)
    assert failed.failure is not None
    assert failed.failure.code == HomeLostError.code
    now = await accepted(pair, failed, ended)
    lives_in = now.target if ended is Phase.COMPLETED else now.source
    placement = (await pair.runtime.contexts.fresh(context.id)).placement
    assert (placement.cell, placement.tier, placement.epoch) == (lives_in.cell, lives_in.tier, now.epoch)
    assert await products(pair, context) == SKUS
    assert await pair.movers.homes_of(context) == {lives_in.cell: [lives_in.schema_name]}
    moved = await pair.movers.move(await pair.runtime.contexts.fresh(context.id), Tier.SCHEMA, cell=FIRST_CELL)
    assert moved.phase is Phase.COMPLETED
    assert await products(pair, context) == SKUS


async def test_a_loss_that_cannot_be_accepted_and_one_that_need_not(pair: FailingOver) -> None:
    context = await pair.tenants(Tier.SHARED, cell=FIRST_CELL)
    await stocked(pair.runtime, context, skus=SKUS)
    failed = await lost_behind_a_flip(pair, context, Tier.SHARED, "cutting_over", "retaining", cell=SECOND_CELL)
    async with admin_of(pair.runtime, FIRST_CELL) as admin:
        row = await admin.fetchrow("DELETE FROM strata.fence WHERE tenant_id = $1 RETURNING *", context.id)
    assert row is not None
    await pair.movers.desk.ask(failed.id, Wish.ACCEPT_LOSS, ACTOR)
    gone = await pair.movers.work(failed)
    assert (gone.phase, gone.failed_in, gone.wish) == (Phase.FAILED, Phase.RETAINING, None)
    assert gone.failure is not None
    assert gone.failure.code == OtherHomeGoneError.code
    assert "backup" in gone.failure.detail
    assert gone.failure.next.startswith("strata migrate retry")
    assert await pair.lets_in(context, *both(gone)) == []

    # The old home is back, the acceptance dies before its flip, and meanwhile the lost home is restored after all.
    async with admin_of(pair.runtime, FIRST_CELL) as admin:
        await admin.execute(
            "INSERT INTO strata.fence (tenant_id, epoch, state, schema_name, attempt) VALUES ($1, $2, 'moved', $3, $4)",
            context.id,
            row["epoch"],
            row["schema_name"],
            row["attempt"],
        )

    async def die() -> None:
        raise InjectedError

    faults.arm("failed.opened", die)
    await pair.movers.desk.ask(failed.id, Wish.ACCEPT_LOSS, ACTOR)
    died = await pair.movers.work(failed)
    assert await pair.lets_in(context, *both(died)) == []
    async with admin_of(pair.runtime, SECOND_CELL) as admin:
        await admin.execute(
            "UPDATE strata.fence SET epoch = $2, state = 'active' WHERE tenant_id = $1", context.id, died.target_epoch
        )
    await pair.movers.desk.ask(failed.id, Wish.RETRY, ACTOR)
    assert (await pair.movers.work(failed)).phase is Phase.COMPLETED
    assert await pair.lets_in(context, *both(died)) == [SECOND_CELL]
    assert await pair.movers.remains(failed.id) == {}


async def test_a_tenant_whose_only_home_was_lost_can_be_deleted(pair: FailingOver) -> None:
    await pair.deafen_standby()
    shared = await pair.tenants(Tier.SHARED, cell=SECOND_CELL)
    alone = NewTenant("alone", "Alone", Tier.DEDICATED, region=REGIONS[SECOND_SERVER])
    await pair.runtime.provisioning.create(alone, ACTOR)
    await pair.fail_over()
    approval = await pair.approve()
    assert [each.slug for each in approval.shut_out] == [shared.slug]
    assert [each.tenants for each in approval.missing] == [[alone.slug]]
    for slug in (shared.slug, alone.slug):
        await pair.runtime.provisioning.delete(slug, ACTOR)
    assert (await pair.approve()).complete
