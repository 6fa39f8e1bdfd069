"""withdrawing: the tenant is back in its old home; take away what was made of the other."""

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


class Withdraw:
    phase: ClassVar = Phase.WITHDRAWING
    rerunnable: ClassVar = True

    async def check(self, work: Work) -> None:
        """Each destructive act checks for itself, in its own transaction."""

    async def run(self, work: Work) -> Advance:
        await say_so(work)
        await settle(work, Direction.BACK, left_at(work))
        assert work.move.epoch is not None  # noqa: S101 - a flip has been made
        if not work.move.progress.get(GIVEN_UP):
            await require_home(work, work.source, work.move.epoch)
            await tell_of_arrival(work, work.move.epoch)
            await require_standbys(work, work.source)
        await work.streams.close_all()
        dropped = await work.around.objects.drop_streams(work.move.id, work.ends)
        await wait_for_events(work, work.target)
        removed = await remove_home(work, Side.TARGET)
        detail = {"removed": [*dropped, *removed]}
        return Advance(Phase.ROLLED_BACK, "rolled back", cell_gone=cell_of(work.target), detail=detail)

    async def compensate(self, work: Work) -> None:
        """What is left is taken away by another run."""
