"""The composition of moves: the keeper that works on them, and what it needs. (The desk is part of the runtime.)"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from uuid import UUID

from strata.migrator.desk import CHANNEL
from strata.migrator.faults import arm_from
from strata.migrator.keeper import Keeper
from strata.migrator.moves import Move, Moves
from strata.migrator.phases import Phase
from strata.migrator.sites import Sites
from strata.migrator.waves.driver import WaveDriver
from strata.migrator.work import Surroundings
from strata.platform.redis_link import RedisLink
from strata.runtime import Runtime
from strata.tenancy.events.emitting import emit
from strata.tenancy.events.remainders import Outboxes
from strata.tenancy.events.types import TenantMoved
from strata.tenancy.model import TenantStatus


def surroundings(runtime: Runtime) -> Surroundings:
    outboxes = Outboxes(runtime.catalog_engine, runtime.registry)

    async def left_behind(tenant_id: UUID, before_epoch: int) -> bool:
        return await outboxes.pending(tenant_id, before_epoch)

    async def arrived(move: Move) -> None:
        await _tell_of_the_move(runtime, move)

    return Surroundings(
        Moves(runtime.catalog_engine),
        Sites(runtime.catalog_engine, runtime.registry),
        runtime.homes,
        runtime.settings.migrator,
        runtime.arrivals,
        runtime.contexts.announce,
        arrived,
        left_behind,
    )


def keeper(runtime: Runtime) -> Keeper:
    return Keeper(surroundings(runtime), _worker_name())


def wave_driver(runtime: Runtime) -> WaveDriver:
    return WaveDriver(runtime.waves.waves, runtime.desk, runtime.settings.migrator, _worker_name())


def _worker_name() -> str:
    return f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(3)}"


async def keep_moving(runtime: Runtime) -> None:
    """Work on moves and waves until cancelled: what a worker does beside its jobs."""
    arm_from(runtime.settings.migrator.faults)
    kept, driver = keeper(runtime), wave_driver(runtime)

    def wake(_: bytes) -> None:
        kept.wake()
        driver.wake()

    redis_url = runtime.settings.redis_url
    link = None
    if redis_url is not None:
        # A link of its own: listeners are named before a link is started.
        link = RedisLink(redis_url.get_secret_value(), timeout_s=runtime.settings.cache.redis_timeout_s)
        link.listen(CHANNEL, wake)
        await link.start()
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(kept.run())
            both.create_task(driver.run())
    finally:
        if link is not None:
            await asyncio.shield(link.close())


async def _tell_of_the_move(runtime: Runtime, move: Move) -> None:
    context = await runtime.contexts.fresh(move.tenant_id)
    regions = {cell.name: cell.region for cell in await runtime.registry.cells()}
    before, after = (
        (move.source, move.target) if move.phase in {Phase.RETAINING, Phase.COMPLETING} else (move.target, move.source)
    )
    if context.placement.cell != after.cell or context.status is not TenantStatus.ACTIVE:
        # One that is held read-only or suspended writes nothing, events neither; the audit has the move in any case.
        return
    event = TenantMoved(
        from_tier=before.tier.value,
        to_tier=after.tier.value,
        from_region=regions.get(before.cell, ""),
        to_region=regions.get(after.cell, ""),
    )
    async with runtime.tenants.transaction(context) as session:
        await emit(session, event)
