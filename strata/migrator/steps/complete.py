"""completing: there is no way back any more. Streams first, then the old home, in acts that each look again."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from strata.migrator.losses import GIVEN_UP
from strata.migrator.models import Side
from strata.migrator.phases import Phase
from strata.migrator.steps.removal import cell_of, remove_home, wait_for_events
from strata.migrator.steps.roll_back import left_at
from strata.migrator.steps.settling import require_home, require_standbys, say_so, settle, tell_of_arrival
from strata.migrator.streams import Direction
from strata.migrator.transitions import Advance

if TYPE_CHECKING:
    from strata.migrator.work import Work


class Complete:
    phase: ClassVar = Phase.COMPLETING
    rerunnable: ClassVar = True

    async def check(self, work: Work) -> None:
        """The old home is the only other one. Each destructive act checks for itself besides, in its own transaction."""
        if work.move.progress.get(GIVEN_UP):
            return
        await require_home(work, work.target, left_at(work))
        await require_standbys(work, work.target)

    async def run(self, work: Work) -> Advance:
        # Where the retention ended before all of it was done, or the loss of the other home was accepted.
        await say_so(work)
        await settle(work, Direction.OUT, work.move.source_epoch)
        if not work.move.progress.get(GIVEN_UP):
            await tell_of_arrival(work, left_at(work))
        await work.streams.close_all()
        dropped = await work.around.objects.drop_streams(work.move.id, work.ends)
        await wait_for_events(work, work.source)
        removed = await remove_home(work, Side.SOURCE)
        await work.around.objects.forget(work.move.id, *await work.around.objects.of(work.move.id))
        detail = {"removed": [*dropped, *removed]}
        return Advance(Phase.COMPLETED, "completed", cell_gone=cell_of(work.source), detail=detail)

    async def compensate(self, work: Work) -> None:
        """What is left is taken away by another run."""
