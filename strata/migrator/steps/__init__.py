"""The steps of a move, in order: one for each phase that is worked on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strata.migrator.steps.approach import Approach
from strata.migrator.steps.begin import Begin
from strata.migrator.steps.cancel import Cancel
from strata.migrator.steps.catch_up import CatchUp
from strata.migrator.steps.complete import Complete
from strata.migrator.steps.copy import Copy
from strata.migrator.steps.cut_over import CutOver
from strata.migrator.steps.prepare import Prepare
from strata.migrator.steps.resume import Resume
from strata.migrator.steps.retain import Retain
from strata.migrator.steps.roll_back import RollBack
from strata.migrator.steps.verify import Verify
from strata.migrator.steps.withdraw import Withdraw

if TYPE_CHECKING:
    from strata.migrator.phases import Phase
    from strata.migrator.steps.base import Step

IN_ORDER: tuple[Step, ...] = (
    Begin(),
    Prepare(),
    Copy(),
    CatchUp(),
    Verify(),
    Approach(),
    CutOver(),
    Retain(),
    Complete(),
    # On the ways out:
    RollBack(),
    Withdraw(),
    Cancel(),
    Resume(),
)

STEPS: dict[Phase, Step] = {step.phase: step for step in IN_ORDER}
