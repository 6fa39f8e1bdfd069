"""failed: nothing is done until a person says what. The machine comes here only when one has."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from strata.migrator.phases import BEFORE_THE_FLIP, Phase, Wish, resumes_in
from strata.migrator.transitions import Advance

if TYPE_CHECKING:
    from strata.migrator.work import Work


class Resume:
    phase: ClassVar = Phase.FAILED
    rerunnable: ClassVar = True

    async def check(self, work: Work) -> None:
        """Whether the wish can be granted was looked at when it was made."""

    async def run(self, work: Work) -> Advance:
        wish, work.wish = work.wish, None
        failed_in = work.move.failed_in or Phase.PENDING
        if wish is Wish.CANCEL and failed_in in BEFORE_THE_FLIP:
            return Advance(Phase.CANCELLING, "cancelling")
        return Advance(resumes_in(failed_in), "tried again")

    async def compensate(self, work: Work) -> None:
        """Nothing was done."""
