"""rolling_back: the cut-over in reverse. See cut_over.py: the acts are the same, the old home and the new change parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from strata.migrator.phases import Phase
from strata.migrator.steps.cut_over import Crossing, undo
from strata.migrator.streams import Direction

if TYPE_CHECKING:
    from strata.migrator.transitions import Advance
    from strata.migrator.work import Work


class RollBack:
    phase: ClassVar = Phase.ROLLING_BACK
    rerunnable: ClassVar = False

    async def check(self, work: Work) -> None:
        """Checked while retaining: here the tenant waits."""

    async def run(self, work: Work) -> Advance:
        return await Crossing(work, Direction.BACK, left_at(work)).cross(Phase.WITHDRAWING, "flipped back")

    async def compensate(self, work: Work) -> None:
        await undo(work, Direction.BACK, left_at(work))


def left_at(work: Work) -> int:
    """The epoch at which the tenant lives in the new home."""
    assert work.move.target_epoch is not None  # noqa: S101 - written by the flip that made a rollback possible
    return work.move.target_epoch
