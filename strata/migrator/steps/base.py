"""What a step is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from strata.migrator.phases import Phase
    from strata.migrator.transitions import Advance
    from strata.migrator.work import Work


class Step(Protocol):
    phase: ClassVar[Phase]
    rerunnable: ClassVar[bool]
    """Whether `run` may follow on a run that died anywhere. The two that can shut the fence are not: for them the catalog
    is told first that the attempt is over, then `compensate` opens it."""

    async def check(self, work: Work) -> None:
        """Raise what stands in the way, before anything is done."""

    async def run(self, work: Work) -> Advance:
        """Do the phase's work and say which phase follows. Writes no phase: the machine does."""

    async def compensate(self, work: Work) -> None:
        """Undo what a run that failed or died has left. Rerunnable itself."""
