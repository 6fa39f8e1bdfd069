"""Moves whose tenant's new home is lost, without a fail-over: what is taken away is what a standby lacks that never heard of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg

from strata.migrator.errors import HomeLostError
from strata.migrator.moves import Move
from strata.migrator.phases import Phase, Wish
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.moving import Movers
from tests.builders.platform import ACTOR, admin_of


async def forget(runtime: Runtime, context: TenantContext, cell: str) -> asyncpg.Record:
    """The cell's row of the tenant, which it has no more."""
    async with admin_of(runtime, cell) as admin:
        [row] = await admin.fetch(
            "DELETE FROM strata.fence WHERE tenant_id = $1 RETURNING tenant_id, epoch, state, schema_name, attempt",
            context.id,
        )
    return row


async def with_a_home_lost(
    movers: Movers,
    context: TenantContext,
    to: Tier,
    *,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
    cell: str | None = None,
    server: str | None = None,
) -> Move:
    """A move that has failed of it while it was retained; `meanwhile`: what else is lost."""
    move = await movers.start(context, to, cell=cell, server=server, retention_s=3600)
    async with movers.working(move):
        await movers.until(move, Phase.RETAINING)
    retained = await movers.desk.moves.get(move.id)
    if retained.in_one_cell:
        # One row for both homes: the standby has it as it was before the flip.
        async with admin_of(movers.runtime, retained.source.cell) as admin:
            await admin.execute(
                "UPDATE strata.fence SET epoch = $2, schema_name = $3, state = 'moved' WHERE tenant_id = $1",
                context.id,
                retained.source_epoch,
                retained.source.schema_name,
            )
    else:
        await forget(movers.runtime, context, retained.target.cell)
    if meanwhile is not None:
        await meanwhile()
    await movers.desk.ask(move.id, Wish.COMPLETE, ACTOR)
    failed = await movers.work(move)
    assert failed.failure is not None
    assert failed.failure.code == HomeLostError.code, failed.failure
    return failed
