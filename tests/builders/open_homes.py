"""Where a tenant is let in, by whom it is that asks: the application's role, with any placement that ever stood."""

from __future__ import annotations

import asyncpg

from strata.migrator.moves import Move
from strata.platform.database import addresses
from strata.runtime import Runtime
from strata.tenancy.cell.door import Isolation, entry_message
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Placement


async def open_homes(runtime: Runtime, context: TenantContext, *placements: Placement) -> list[str]:
    """The cells that the application's role gets into as the tenant, at any of these placements."""
    open_cells = []
    for placement in placements:
        cell = await runtime.registry.cell(placement.cell)
        connection = await asyncpg.connect(addresses.libpq(cell.url), statement_cache_size=0)
        try:
            await connection.execute(
                entry_message(cell.secret, context.id, placement, Isolation.READ_COMMITTED, read_only=False)
            )
            open_cells.append(placement.cell)
        except asyncpg.PostgresError:
            pass
        finally:
            connection.terminate()
    return open_cells


def both(*moves: Move) -> tuple[Placement, ...]:
    """Old home and new one, at each epoch that the move has given out in any of these states of it."""
    epochs = {epoch for move in moves for epoch in (move.source_epoch, move.epoch or 0, move.target_epoch or 0)}
    return tuple(
        Placement(cell=place.cell, tier=place.tier, schema_name=place.schema_name, epoch=epoch)
        for place in (moves[0].source, moves[0].target)
        for epoch in sorted(epochs)
    )
