"""What follows a flip, in either direction: nobody is let into the home that was left, and everybody learns of the other."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from strata.migrator import fence
from strata.migrator.errors import HomeLostError, StandbyBehindError
from strata.migrator.faults import reached
from strata.migrator.losses import CAME_BACK
from strata.migrator.streams import Direction, stream_name

if TYPE_CHECKING:
    from strata.migrator.sites import End
    from strata.migrator.work import Work

_GO_FIRST_S = 0.5

_APPLIED = "SELECT position::text, updated_at::text AS at FROM strata.apply_progress WHERE origin = $1"
_BEHIND = """
SELECT application_name FROM pg_catalog.pg_stat_replication r
WHERE state IN ('streaming', 'catchup') AND flush_lsn < $1::text::pg_lsn
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
UNION ALL
SELECT slot_name FROM pg_catalog.pg_replication_slots
WHERE slot_type = 'physical' AND NOT active AND restart_lsn < $1::text::pg_lsn
"""


async def say_so(work: Work) -> None:
    """First of all: who waits in this process and others finds the new home by asking the catalog, and asks it now."""
    move, around = work.move, work.around
    await around.arrivals.opened(move.tenant_id)
    opened_at = time.monotonic()
    await around.announce(move.tenant_id)
    if work.crossed is not None:
        await around.moves.note(move, write_block_ms=round((opened_at - work.crossed.shut_at) * 1000, 1))
        # What follows takes the processor, and nobody waits for it: those who have waited go first.
        await asyncio.sleep(_GO_FIRST_S)
        await work.let_crossing_go()
    elif move.write_block_ms is None:
        # Whoever flipped has died: a little more than it would have said.
        await around.moves.note(move, write_block_ms=await around.moves.latest_crossing_ms(move))


async def require_home(work: Work, end: End, epoch: int) -> None:
    """Before anything is concluded about a home that was left: the tenant can get in where it lives."""
    if await end.is_there():
        await end.require_approved()
        async with end.admin() as connection:
            if await fence.lets_in(connection, work.move.tenant_id, end.home.schema_name, epoch):
                return
    # Read while it is there: what a failed step leaves is taken away.
    await work.note(**{CAME_BACK: await _came_back(work)})
    raise HomeLostError(end.place.cell, epoch)


async def _came_back(work: Work) -> dict[str, str] | None:
    """How much of what was written in the new home the old one has by its own word."""
    known: dict[str, str] | None = work.move.progress.get(CAME_BACK)
    if not await work.source.is_there():
        return known
    async with work.source.admin() as connection:
        row = await connection.fetchrow(_APPLIED, stream_name(work.move, Direction.BACK))
    return {"position": row["position"], "at": row["at"]} if row is not None else known


async def require_standbys(work: Work, end: End) -> None:
    """Before the other home is taken away: whichever standby may be promoted next has the tenant.

    Of one that is away without a slot nothing is known here; it is not waited for.
    """
    arrival = f"position of the arrival at {work.move.epoch}"
    async with end.admin() as connection:
        if arrival not in work.move.progress:
            position = await connection.fetchval("SELECT pg_catalog.pg_current_wal_flush_lsn()::text")
            await work.note(**{arrival: position})
        behind = await connection.fetch(_BEHIND, work.move.progress[arrival])
    if behind:
        raise StandbyBehindError(end.place.cell, [row[0] for row in behind])


async def settle(work: Work, direction: Direction, epoch_left: int) -> None:
    """Step 8. Rerunnable: a worker that takes over after the flip does it again."""
    left, _ = work.streams.ends_of(direction)
    if await left.is_there():
        async with left.shutting() as old:
            await fence.retire(old, work.move.tenant_id, epoch_left)
    await reached(f"{work.move.phase}.retired")


async def tell_of_arrival(work: Work, epoch: int) -> None:
    """In the tenant's name, and so only where it is let in, at this epoch: see `require_home`."""
    told = f"arrived at {epoch}"
    if told not in work.move.progress:
        await work.around.arrived(work.move)
        await work.note(**{told: True})
