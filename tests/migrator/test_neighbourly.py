"""Moves take turns on a server, and a copy goes slower where its neighbours would feel it."""

from __future__ import annotations

import asyncio

from strata.migrator import faults
from strata.migrator.phases import Phase, Wish
from strata.migrator.status import status_of
from strata.tenancy.model import Tier
from tests.builders.moving import Movers
from tests.builders.platform import ACTOR, Tenantry


async def test_a_move_beyond_the_budget_of_a_server_waits_its_turn_and_says_why(
    movers: Movers, mover_tenant: Tenantry
) -> None:
    inside = asyncio.Event()

    async def stay() -> None:
        inside.set()
        await asyncio.Event().wait()

    first = await movers.start(await mover_tenant(Tier.SHARED), Tier.SCHEMA)
    second = await movers.start(await mover_tenant(Tier.SHARED), Tier.SCHEMA)
    faults.arm("copying.published", stay)
    async with movers.working(first):
        await inside.wait()
        async with movers.working(second, moves_per_server=1):
            assert (await movers.waiting(second, "at most 1 go at a time")).phase is Phase.PENDING
            await movers.desk.ask(first.id, Wish.CANCEL, ACTOR)
            await movers.told(second, "preparing")
            await movers.desk.ask(second.id, Wish.CANCEL, ACTOR)
            await movers.until(second, Phase.CANCELLED)
        await movers.until(first, Phase.CANCELLED)


async def test_a_comparison_that_is_held_back_says_what_does_so(movers: Movers, mover_tenant: Tenantry) -> None:
    inside = asyncio.Event()

    async def stay() -> None:
        inside.set()
        await asyncio.Event().wait()

    faults.arm("verifying.slot", stay)
    move = await movers.start(await mover_tenant(Tier.SHARED), Tier.SCHEMA)
    # Every commit is too slow.
    async with movers.working(move, throttle_slower_times=0, throttle_slow_ms=0):
        async with asyncio.timeout(240):
            await inside.wait()
            while "before the copy" not in (status_of(await movers.desk.moves.get(move.id)).throttled or ""):  # noqa: ASYNC110 - it is a row
                await asyncio.sleep(0.1)
        await movers.desk.ask(move.id, Wish.CANCEL, ACTOR)
        await movers.until(move, Phase.CANCELLED)
