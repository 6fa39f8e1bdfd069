"""A standby promoted in mid-move: the tenant is let in at one place at most, and nothing is concluded from what is missing."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from strata.migrator import faults
from strata.migrator.errors import FailedOverError, HomeLostError
from strata.migrator.moves import Move
from strata.migrator.phases import Phase
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import CellClosedError
from strata.tenancy.model import Placement, Tier
from tests.builders.failing_over import FailingOver, failing_over
from tests.builders.inventory import stocked
from tests.builders.platform import FIRST_CELL, SECOND_CELL
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
        async with failing_over(postgres_server, redis_server, Path(folder)) as made:
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


async def has_failed(pair: FailingOver, move: Move) -> Move:
    async with asyncio.timeout(300):
        while (now := await pair.movers.desk.moves.get(move.id)).phase is not Phase.FAILED:  # noqa: ASYNC110 - it is a row
            await asyncio.sleep(0.1)
    return now


def both(context: TenantContext, move: Move) -> tuple[Placement, ...]:
    """Old home and new one, at each epoch that the move has given out."""
    epochs = {move.source_epoch, move.epoch or 0, move.target_epoch or 0}
    return tuple(
        Placement(cell=place.cell, tier=place.tier, schema_name=place.schema_name, epoch=epoch)
        for place in (move.source, move.target)
        for epoch in epochs
    )


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
        assert await pair.lets_in(context, *both(context, now)) == home
        if here == SECOND_CELL:
            with pytest.raises(CellClosedError):
                await products(pair, context)
        await pair.approve()
        await pair.movers.until(move, Phase.RETAINING)
    now = await pair.movers.desk.moves.get(move.id)
    assert await pair.lets_in(context, *both(context, now)) == [there]
    assert await products(pair, context) == SKUS


async def test_a_source_promoted_after_the_flip_that_has_not_heard_of_it(pair: FailingOver) -> None:
    context = await pair.tenants(Tier.SHARED, cell=SECOND_CELL)
    await stocked(pair.runtime, context, skus=SKUS)
    failed_over = asyncio.Event()

    async def fail_over() -> None:
        await pair.fail_over()
        failed_over.set()

    faults.arm("cutting_over.begin", pair.deafen_standby)
    faults.arm("retaining.begin", fail_over)
    move = await pair.movers.start(context, Tier.SHARED, cell=FIRST_CELL, retention_s=3600)
    async with pair.movers.keeping():
        await failed_over.wait()
        # By its own row the promoted standby is the tenant's home: that is mended before anybody can approve it.
        await waits_for_approval(pair, move)
        now = await pair.movers.desk.moves.get(move.id)
        assert await pair.lets_in(context, *both(context, now)) == [FIRST_CELL]
        assert await products(pair, context) == SKUS
        await pair.approve()
        assert await pair.lets_in(context, *both(context, now)) == [FIRST_CELL]
        assert (await pair.movers.desk.moves.get(move.id)).phase is Phase.RETAINING
    assert await products(pair, context) == SKUS


async def test_a_target_promoted_after_the_flip_that_has_not_heard_of_the_arrival(pair: FailingOver) -> None:
    context = await pair.tenants(Tier.SHARED, cell=FIRST_CELL)
    await stocked(pair.runtime, context, skus=SKUS)
    failed_over = asyncio.Event()

    async def fail_over() -> None:
        await pair.fail_over()
        failed_over.set()

    faults.arm("cutting_over.begin", pair.deafen_standby)
    faults.arm("retaining.begin", fail_over)
    move = await pair.movers.start(context, Tier.SHARED, cell=SECOND_CELL, retention_s=0)
    async with pair.movers.keeping():
        await failed_over.wait()
        await waits_for_approval(pair, move)
        now = await pair.movers.desk.moves.get(move.id)
        assert now.phase is Phase.RETAINING, "nothing is concluded before a person has approved the server"
        assert await pair.lets_in(context, *both(context, now)) == []
        await pair.approve()
        now = await has_failed(pair, move)
    assert now.failure is not None
    assert now.failure.code == HomeLostError.code
    assert "is closed" in now.failure.tenant
    assert await pair.lets_in(context, *both(context, now)) == []
    # The old home holds everything up to the flip, and the promoted standby nothing from behind it.
    homes = await pair.movers.homes_of(context)
    assert FIRST_CELL in homes
    assert now.failure.next.startswith("strata migrate retry")
    assert "not registered" in now.failure.next, "that would take from everybody else what they have written here since"
