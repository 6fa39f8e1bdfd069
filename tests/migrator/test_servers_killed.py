"""kill -9 of a whole PostgreSQL server in every phase that streams, then its start: the move goes on by itself."""

from __future__ import annotations

import asyncio

import pytest

from strata.migrator import faults
from strata.migrator.phases import Phase, Wish
from strata.tenancy.model import Tier
from tests.builders.breakable import Breakable, kill, revive
from tests.builders.contexts import eventually
from tests.builders.platform import ACTOR, FIRST_CELL, SECOND_CELL
from tests.builders.traffic import Ledger, assert_kept, traffic

AWAY_S = 1.5
BACK_WITHIN_S = 30.0
POINTS = ["copying.slot", "catching_up.begin", "cutting_over.drained", "cutting_over.opened", "retaining.retired"]
# Which server dies, and where the tenant comes from and goes to. The first server has the catalog, too.
DEATHS = {
    "source": (SECOND_CELL, SECOND_CELL, FIRST_CELL),
    "target": (SECOND_CELL, FIRST_CELL, SECOND_CELL),
    "source and catalog": (FIRST_CELL, FIRST_CELL, SECOND_CELL),
    "target and catalog": (FIRST_CELL, SECOND_CELL, FIRST_CELL),
}
QUICK = {("target", "cutting_over.drained")}


@pytest.mark.parametrize(
    ("who", "point"),
    [
        pytest.param(who, point, marks=[] if (who, point) in QUICK else [pytest.mark.slow])
        for who in DEATHS
        for point in POINTS
    ],
)
async def test_a_server_that_dies_and_comes_back(ground: Breakable, who: str, point: str) -> None:
    dies, here, there = DEATHS[who]
    server, movers = ground.server_of(dies), ground.movers
    context = await ground.tenants(Tier.SHARED, cell=here)
    died = asyncio.Event()

    async def die() -> None:
        await kill(server)
        died.set()

    faults.arm(point, die, context.id)
    async with traffic(ground.site, context, writers=2, outages=True) as ledger, movers.keeping():
        move = await movers.start(context, Tier.SCHEMA, cell=there, retention_s=3600)
        await died.wait()
        await asyncio.sleep(AWAY_S)
        await revive(server)
        await movers.until(move, Phase.RETAINING)
        await works_again(ledger)
        await movers.desk.ask(move.id, Wish.COMPLETE, ACTOR)
        await movers.until(move, Phase.COMPLETED)
    await assert_kept(ground.runtime, context, ledger)
    assert await movers.remains(move.id) == {}
    assert await movers.homes_of(context) == {there: [f"t_{context.id.hex}"]}


@pytest.mark.slow
@pytest.mark.parametrize("who", DEATHS)
async def test_a_server_that_dies_while_the_way_back_is_kept_open(ground: Breakable, who: str) -> None:
    dies, here, there = DEATHS[who]
    server, movers = ground.server_of(dies), ground.movers
    context = await ground.tenants(Tier.SHARED, cell=here)
    async with traffic(ground.site, context, writers=2, outages=True) as ledger, movers.keeping():
        move = await movers.start(context, Tier.SCHEMA, cell=there, retention_s=3600)
        await movers.until(move, Phase.RETAINING)
        await kill(server)
        await asyncio.sleep(AWAY_S)
        await revive(server)
        await works_again(ledger)
        await movers.desk.ask(move.id, Wish.ROLL_BACK, ACTOR)
        await movers.until(move, Phase.ROLLED_BACK)
        await works_again(ledger)
    await assert_kept(ground.runtime, context, ledger)
    assert await movers.remains(move.id) == {}
    assert await movers.homes_of(context) == {here: ["shared"]}


@pytest.mark.slow
async def test_worker_redis_and_catalog_gone_for_a_while_in_retaining(ground: Breakable) -> None:
    """Nothing is lost by a worker's absence, and one that is there again takes the move up within seconds."""
    movers = ground.movers
    context = await ground.tenants(Tier.SHARED, cell=FIRST_CELL)
    async with traffic(ground.site, context, writers=2, outages=True) as ledger:
        async with movers.keeping():
            move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL, retention_s=3600)
            await movers.until(move, Phase.RETAINING)
            await movers.told(move, "flipped")
        await kill(ground.redis)
        await kill(ground.first)
        await asyncio.sleep(AWAY_S)
        await asyncio.gather(revive(ground.redis), revive(ground.first))
        await works_again(ledger)
        await movers.desk.ask(move.id, Wish.ROLL_BACK, ACTOR)
        async with movers.keeping():
            await movers.until(move, Phase.ROLLED_BACK, within_s=BACK_WITHIN_S)
    await assert_kept(ground.runtime, context, ledger)
    assert await movers.remains(move.id) == {}
    assert await movers.homes_of(context) == {FIRST_CELL: ["shared"]}


async def works_again(ledger: Ledger) -> None:
    """The tenant writes: five more acknowledged ones."""
    written = len(ledger.entries)
    await eventually(lambda: len(ledger.entries) > written + 5, within_s=BACK_WITHIN_S)
