"""kill -9 of the application in the window of the cut-over: the move does not need it, and the next one finds the tenant."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from strata.migrator import faults
from strata.migrator.phases import Phase
from strata.platform.embedded.directory import find_free_port
from strata.tenancy.model import Tier
from tests.builders.application import application
from tests.builders.contexts import eventually
from tests.builders.moving import Movers
from tests.builders.platform import SECOND_CELL, Platform, Tenantry
from tests.builders.site import Site
from tests.builders.traffic import assert_kept, traffic


@pytest.mark.slow
@pytest.mark.parametrize("point", ["copying.slot", "cutting_over.closed"])
async def test_the_application_killed_and_started(
    movers: Movers, moving_platform: Platform, mover_tenant: Tenantry, moving_site: Site, point: str
) -> None:
    context = await mover_tenant(Tier.SHARED)
    port = find_free_port()
    dead = asyncio.Event()
    async with application(moving_platform, port) as first:

        async def die() -> None:
            first.kill()
            await first.wait()
            dead.set()

        faults.arm(point, die, context.id)
        site = msgspec.structs.replace(moving_site, port=port)
        async with traffic(site, context, writers=2, outages=True) as ledger, movers.keeping():
            move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL)
            await dead.wait()
            async with application(moving_platform, port):
                await movers.until(move, Phase.COMPLETED)
                written = len(ledger.entries)
                await eventually(lambda: len(ledger.entries) > written + 5, within_s=30)
    await assert_kept(movers.runtime, context, ledger)
    assert await movers.remains(move.id) == {}
    assert await movers.homes_of(context) == {SECOND_CELL: [f"t_{context.id.hex}"]}
