"""ready: everything that can be done outside the window of the cut-over, so that little is left to do inside it.

The way back is made and read from now on; the tenant is taken off standbys; nobody is inside the fence for long; the
lag is under its gate. Checks stand here and not in the cut-over, where the tenant would wait for them.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar

from strata.migrator import fence
from strata.migrator.errors import NotFitError, PutOffError
from strata.migrator.fitness import objections_to_revisions
from strata.migrator.phases import Phase
from strata.migrator.steps.catch_up import watch_lag
from strata.migrator.streams import Direction
from strata.migrator.transitions import Advance
from strata.platform.errors import ConflictError
from strata.tenancy.model import Placement
from strata.tenancy.replicas.closing import close_to_standbys, reopen_to_standbys

if TYPE_CHECKING:
    from strata.migrator.moves import Place
    from strata.migrator.replay import Replay
    from strata.migrator.sites import End
    from strata.migrator.work import Work
    from strata.platform.settings import MigratorSettings

_LOOK_EVERY_S = 0.5
_HOLDERS_EVERY_S = 0.05


class NeverQuietError(ConflictError):
    code = "never-quiet"
    title = "No moment to cut over was found"

    def __init__(self, tries: int) -> None:
        super().__init__(
            f"The cut-over was called off {tries} times: the events of the move say what was in the way each time. Retry "
            "at a quieter hour."
        )


class Approach:
    phase: ClassVar = Phase.READY
    rerunnable: ClassVar = True

    async def check(self, work: Work) -> None:
        if work.called_off >= work.settings.called_off_limit:
            raise NeverQuietError(work.called_off)
        async with work.source.admin() as source, work.target.admin() as target:
            objections = await objections_to_revisions(
                source, work.source.home.schema_name, target, work.target.home.schema_name
            )
        if objections:
            raise NotFitError([each.problem for each in objections])

    async def run(self, work: Work) -> Advance:
        replay = await work.streams.replay(work.move, Direction.OUT)
        await self._held(work, replay)
        waiting = await work.around.moves.retaining_in(work.move.target.cell)
        if work.move.retention_s and waiting >= work.settings.retentions_per_cell:
            detail = f"{waiting} moves into {work.move.target.cell} are kept reversible, as many as it takes."
            raise PutOffError(detail, after_s=5.0)
        await work.streams.make_back(work.move, work.settings.slot_deadline_s)
        await work.streams.replay(work.move, Direction.BACK)
        async with work.source.admin() as source:
            await close_to_standbys(source, work.move.tenant_id, work.move.source_epoch)
        await expect(work, work.move.target, work.move.source_epoch)
        await gate(work, work.source, replay)
        return Advance(Phase.CUTTING_OVER, "cutting over", epoch=await work.around.moves.next_epoch())

    async def _held(self, work: Work, replay: Replay) -> None:
        """Wait for the word, where somebody asked to be waited for."""
        while work.hold:
            stopped = asyncio.ensure_future(replay.failed())
            heard = asyncio.ensure_future(work.news(_LOOK_EVERY_S))
            try:
                await asyncio.wait({stopped, heard}, return_when=asyncio.FIRST_COMPLETED)
                if stopped.done():
                    stopped.result()
            finally:
                for task in (stopped, heard):
                    task.cancel()
                await asyncio.wait({stopped, heard})
            await watch_lag(work, replay)

    async def compensate(self, work: Work) -> None:
        # Held: another may have closed the tenant to them again by now, for the cut-over that it is in.
        async with work.source.shutting() as source:
            await reopen_to_standbys(source, work.move.tenant_id, work.move.source_epoch)
        await work.let_streams_go()


async def expect(work: Work, place: Place, epoch_now: int) -> None:
    """Have the applications open connections to where the tenant will live: after the flip, requests would wait for them."""
    coming = Placement(cell=place.cell, tier=place.tier, schema_name=place.schema_name, epoch=epoch_now)
    await work.around.arrivals.expect(work.move.tenant_id, coming, work.settings.make_ready_s)


async def gate(work: Work, origin: End, replay: Replay) -> None:
    """Return at a moment when a cut-over has good prospects: nobody inside for long, little left to apply.

    A tenant that is never without such a transaction (a busy server is enough) would otherwise never move.
    """
    began = time.monotonic()
    while True:
        await replay.caught_up(work.settings.lag_gate_bytes)
        async with origin.admin() as connection:
            inside = await fence.holders(connection, work.move.tenant_id)
        allowed_ms = allowed_age_ms(work.settings, time.monotonic() - began)
        old = [each for each in inside if each.age_ms > allowed_ms]
        if not old:
            return
        await work.note(waiting=f"a transaction of the tenant's has been open for {old[0].age_ms / 1000:.1f} s")
        await asyncio.sleep(_HOLDERS_EVERY_S)


def allowed_age_ms(settings: MigratorSettings, waited_s: float) -> float:
    """How old a transaction may be whose end a cut-over still waits for with the fence shut."""
    grown = settings.holder_age_ms * (1 + waited_s // settings.holder_patience_s)
    return max(settings.holder_age_ms, min(grown, settings.lock_deadline_ms))
