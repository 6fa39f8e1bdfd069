"""The source's walsender and the target's applier are ended in every phase that streams: they come back by themselves."""

from __future__ import annotations

import asyncio

import pytest

from strata.migrator import faults
from strata.migrator.moves import Move
from strata.migrator.phases import Phase, Wish
from strata.tenancy.model import Tier
from tests.builders.contexts import eventually
from tests.builders.moving import Movers
from tests.builders.platform import ACTOR, SECOND_CELL, Tenantry, admin_of
from tests.builders.site import Site
from tests.builders.traffic import assert_kept, traffic

WALSENDER = "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name LIKE $1 AND active"
APPLIER = (
    "SELECT pg_terminate_backend(s.pid, 5000) FROM pg_stat_activity s"
    " WHERE s.application_name LIKE $1 AND s.pid <> pg_backend_pid() AND s.datname = current_database()"
)
POINTS = [
    "copying.slot",
    "copying.copied",
    "verifying.begin",
    "verifying.slot",
    "ready.begin",
    "cutting_over.closed",
    "cutting_over.drained",
]


async def sever(movers: Movers, move: Move, what: str, cell: str) -> int:
    """How many connections of the move's were ended in the cell."""
    stem = f"strata_{move.id.hex[-12:]}_%" if what == "walsender" else f"strata-move-{move.tenant_id.hex}-%"
    async with admin_of(movers.runtime, cell) as admin:
        return len(await admin.fetch(WALSENDER if what == "walsender" else APPLIER, stem))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "point"),
    [(what, point) for what in ("walsender", "applier") for point in POINTS],
)
async def test_severed_before_the_flip(
    movers: Movers, mover_tenant: Tenantry, moving_site: Site, what: str, point: str
) -> None:
    context = await mover_tenant(Tier.SHARED)
    severed: list[int] = []
    move: Move

    async def cut() -> None:
        cell = context.placement.cell if what == "walsender" else SECOND_CELL
        severed.append(await sever(movers, move, what, cell))

    faults.arm(point, cut, context.id)
    async with traffic(moving_site, context, writers=2) as ledger:
        move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL)
        async with movers.keeping():
            await movers.until(move, Phase.COMPLETED)
    assert severed
    await assert_kept(movers.runtime, context, ledger)
    assert await movers.remains(move.id) == {}
    assert await movers.homes_of(context) == {SECOND_CELL: [f"t_{context.id.hex}"]}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["walsender", "applier"])
async def test_severed_on_the_way_back(movers: Movers, mover_tenant: Tenantry, moving_site: Site, what: str) -> None:
    context = await mover_tenant(Tier.SHARED)
    async with traffic(moving_site, context, writers=2) as ledger, movers.keeping():
        move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL, retention_s=3600)
        await movers.until(move, Phase.RETAINING)
        await movers.told(move, "flipped")
        for _ in range(3):
            written = len(ledger.entries)
            cell = SECOND_CELL if what == "walsender" else context.placement.cell
            async with asyncio.timeout(20):
                while not await sever(movers, move, what, cell):  # noqa: ASYNC110 - another server's state
                    await asyncio.sleep(0.1)
            await eventually(lambda: len(ledger.entries) > written + 5, within_s=30)  # noqa: B023 - awaited at once
        await movers.desk.ask(move.id, Wish.ROLL_BACK, ACTOR)
        await movers.until(move, Phase.ROLLED_BACK)
    await assert_kept(movers.runtime, context, ledger)
    assert await movers.remains(move.id) == {}
    assert await movers.homes_of(context) == {context.placement.cell: ["shared"]}
