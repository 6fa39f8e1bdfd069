"""The graph of phases: no dead ends, no way past the flip but through it."""

from __future__ import annotations

import pytest

from strata.migrator.phases import (
    AT_THE_FLIP,
    BEFORE_THE_FLIP,
    FINISHED,
    LIVES_ON,
    Phase,
    Stage,
    may_follow,
    resumes_in,
    stage_of,
)
from strata.migrator.steps import IN_ORDER, STEPS


def reachable(start: Phase) -> set[Phase]:
    found, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        after = {phase for phase in Phase if may_follow(here, phase)} - found
        found |= after
        waiting += after
    return found


@pytest.mark.parametrize("phase", sorted(set(Phase) - FINISHED))
def test_from_everywhere_an_end_can_be_reached(phase: Phase) -> None:
    assert reachable(phase) & FINISHED


@pytest.mark.parametrize("phase", sorted(FINISHED))
def test_nothing_follows_an_end(phase: Phase) -> None:
    assert not any(may_follow(phase, other) for other in Phase)


def test_the_new_home_is_reached_through_the_flip_alone() -> None:
    entering = {phase for phase in Phase if may_follow(phase, Phase.RETAINING)}
    assert entering == {Phase.CUTTING_OVER, Phase.ROLLING_BACK}


def test_what_may_have_deleted_the_old_home_never_leads_back() -> None:
    assert {phase for phase in Phase if may_follow(Phase.COMPLETING, phase)} == {Phase.COMPLETED, Phase.FAILED}
    assert resumes_in(Phase.COMPLETING) is Phase.COMPLETING


@pytest.mark.parametrize("failed_in", sorted(LIVES_ON))
def test_whoever_lost_its_home_lives_on_where_nothing_has_been_removed(failed_in: Phase) -> None:
    """`withdrawing` removes the new home, `completing` the old one."""
    assert failed_in not in BEFORE_THE_FLIP
    assert LIVES_ON[failed_in] in {Phase.WITHDRAWING, Phase.COMPLETING} - {failed_in}


def test_with_the_fence_shut_a_move_does_not_stop_for_a_person() -> None:
    assert not any(may_follow(phase, Phase.FAILED) for phase in AT_THE_FLIP)


@pytest.mark.parametrize("phase", sorted(BEFORE_THE_FLIP - {Phase.CANCELLING}))
def test_a_retry_before_the_flip_begins_with_an_empty_target(phase: Phase) -> None:
    assert resumes_in(phase) is Phase.PREPARING


def test_every_phase_that_is_worked_on_has_a_step_and_every_phase_a_stage() -> None:
    assert set(STEPS) == set(Phase) - FINISHED
    assert len(IN_ORDER) == len(STEPS)
    assert {stage_of(phase) for phase in Phase} == set(Stage)


def test_only_the_steps_that_shut_the_fence_cannot_be_run_again() -> None:
    assert {step.phase for step in IN_ORDER if not step.rerunnable} == set(AT_THE_FLIP)
