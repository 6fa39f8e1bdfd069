"""failed: nothing is done until a person says what. The machine comes here only when one has."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from strata.migrator.phases import BEFORE_THE_FLIP, ENDS_BY, Phase, Wish
from strata.migrator.steps.acceptance import accept_loss, give_up, try_again
from strata.migrator.transitions import Advance

if TYPE_CHECKING:
    from strata.migrator.work import Work


class Resume:
    phase: ClassVar = Phase.FAILED
    rerunnable: ClassVar = True

    async def check(self, work: Work) -> None:
        """Whether the wish can be granted was looked at when it was made."""

    async def run(self, work: Work) -> Advance:
        failed_in = work.move.failed_in or Phase.PENDING
        if work.wish is Wish.CANCEL and failed_in in BEFORE_THE_FLIP:
            advance = Advance(Phase.CANCELLING, "cancelling")
        elif work.wish is Wish.CANCEL and failed_in in ENDS_BY:
            advance = await give_up(work)
        elif work.wish is Wish.ACCEPT_LOSS:
            advance = await accept_loss(work)
        else:
            advance = await try_again(work)
        work.wish = None
        return advance

    async def compensate(self, work: Work) -> None:
        """Nothing was done."""
