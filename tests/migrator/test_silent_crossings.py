"""While the fence is shut a server falls silent, or the worker is told to stop: the tenant does not wait for either."""

from __future__ import annotations

import asyncio

import pytest

from strata.migrator import faults
from strata.migrator.faults import InjectedError
from strata.migrator.phases import Phase, Wish
from strata.platform.database.administration import administrator
from strata.platform.database.names import quoted
from strata.tenancy.model import Tier
from tests.builders.breakable import Breakable
from tests.builders.inventory import stocked
from tests.builders.moving import Movers
from tests.builders.platform import ACTOR, FIRST_CELL, SECOND_CELL, Tenantry, admin_of, as_admin
from tests.builders.silence import silence

SOON_S = 8.0
"""Two seconds, on a machine that is busy; to close a silent connection in order takes ten."""
AWAY_S = 0.7
"""Less than a lease."""
OF_THE_MOVE = "application_name LIKE $1"
AT_HAND = "state = 'idle in transaction' AND query LIKE '%moved%'"


@pytest.mark.parametrize(
    ("point", "cell"),
    [
        ("cutting_over.closed", FIRST_CELL),
        ("cutting_over.drained", SECOND_CELL),
        pytest.param("cutting_over.applied", SECOND_CELL, marks=pytest.mark.slow),
    ],
)
async def test_a_server_that_falls_silent_while_the_fence_is_shut(ground: Breakable, point: str, cell: str) -> None:
    """Its connections stay open, and nothing more is heard on them."""
    movers = ground.movers
    context = await ground.tenants(Tier.SHARED, cell=FIRST_CELL)
    await stocked(ground.runtime, context, skus=1)
    fell = asyncio.Event()
    with silence() as silent:

        async def fall_silent() -> None:
            async with admin_of(ground.runtime, cell) as admin:
                await silent.fall(admin, OF_THE_MOVE, f"strata-move-{context.id.hex}-%")
            fell.set()

        faults.arm(point, fall_silent, context.id)
        move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL)
        async with movers.keeping():
            await fell.wait()
            async with asyncio.timeout(SOON_S):
                await stocked(ground.runtime, context, prefix="L")
            silent.end()
            await movers.until(move, Phase.COMPLETED)
    assert await movers.remains(move.id) == {}


async def test_a_catalog_that_falls_silent_on_the_connection_that_was_at_hand(ground: Breakable) -> None:
    """The crossing is called off over another one."""
    movers = ground.movers
    context = await ground.tenants(Tier.SHARED, cell=FIRST_CELL)
    await stocked(ground.runtime, context, skus=1)
    fell = asyncio.Event()
    with silence() as silent:

        async def fall_silent() -> None:
            async with administrator(ground.runtime.catalog_url) as admin:
                await silent.fall(admin, AT_HAND)
            fell.set()
            raise InjectedError

        faults.arm("cutting_over.drained", fall_silent, context.id)
        move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL)
        async with movers.keeping():
            await fell.wait()
            async with asyncio.timeout(SOON_S):
                await stocked(ground.runtime, context, prefix="L")
            silent.end()
            await movers.until(move, Phase.COMPLETED)
    assert await movers.remains(move.id) == {}


async def test_a_catalog_that_is_away_for_a_moment_when_the_crossing_is_called_off(ground: Breakable) -> None:
    """Whoever has the move goes on with it: another would have to wait until the lease has run out."""
    movers = ground.movers
    context = await ground.tenants(Tier.SHARED, cell=FIRST_CELL)
    away = asyncio.Event()
    catalog = ground.runtime.catalog_url.database
    assert catalog is not None

    async def go_away() -> None:
        await close_to_all(ground, catalog)
        away.set()
        raise InjectedError

    faults.arm("cutting_over.drained", go_away, context.id)
    move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL)
    async with movers.keeping():
        try:
            await away.wait()
            await asyncio.sleep(AWAY_S)
        finally:
            await open_to_all(ground, catalog)
        await movers.until(move, Phase.COMPLETED)
    assert "taken over" not in {event.what for event in await movers.desk.moves.events(move.id)}


@pytest.mark.parametrize("point", ["closed", pytest.param("opened", marks=pytest.mark.slow)])
async def test_a_worker_that_is_told_to_stop_while_the_fence_is_shut_ends_the_crossing_first(
    movers: Movers, mover_tenant: Tenantry, point: str
) -> None:
    """Nobody else may be there to do it."""
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, skus=1)
    shut = asyncio.Event()

    async def be_told() -> None:
        shut.set()
        await asyncio.sleep(0.05)

    faults.arm(f"cutting_over.{point}", be_told, context.id)
    move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL, retention_s=3600)
    async with movers.working(move):
        await shut.wait()
    now = await movers.runtime.contexts.fresh(context.id)
    async with asyncio.timeout(SOON_S):
        await stocked(movers.runtime, now, prefix="L")
    async with movers.keeping():
        await movers.until(move, Phase.RETAINING)
        await movers.told(move, "flipped")
        await movers.desk.ask(move.id, Wish.COMPLETE, ACTOR)
        await movers.until(move, Phase.COMPLETED)


async def close_to_all(ground: Breakable, database: str) -> None:
    """As when its server is being started again."""
    async with as_admin(ground.platform.first, "postgres") as admin:
        await admin.execute(f"ALTER DATABASE {quoted(database)} ALLOW_CONNECTIONS false")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database)


async def open_to_all(ground: Breakable, database: str) -> None:
    async with as_admin(ground.platform.first, "postgres") as admin:
        await admin.execute(f"ALTER DATABASE {quoted(database)} ALLOW_CONNECTIONS true")
