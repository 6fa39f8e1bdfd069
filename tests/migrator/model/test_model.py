"""Every state of the cut-over that can be reached is safe and has a way on; and bugs put in on purpose are found."""

from __future__ import annotations

import pytest

from strata.migrator import fence
from strata.migrator.phases import Phase
from strata.migrator.steps import acceptance
from tests.migrator.model import cutover
from tests.migrator.model.checker import Found, explore
from tests.migrator.model.cutover import RETAINING, SOURCE, TARGET, Bounds, CutOver, State
from tests.migrator.model.lost import Lost

SMALL = Bounds(requests=1, writes=1, attempts=2)
LARGE = Bounds(requests=2, writes=2, attempts=2)
LARGEST = Bounds(requests=1, writes=1, attempts=3)
# With a standby: one worker is enough, for it may sleep wherever the operator approves.
FAILING_OVER = Bounds(requests=1, writes=1, attempts=1, workers=1)
# Of what has been lost already: two workers, each of whom may take the move, and a write more than there were.
LOSING = Bounds(requests=1, writes=3, attempts=4)
# And of what is given up: one worker, who may sleep or die while the other home goes and comes back.
GIVING_UP = Bounds(requests=1, writes=3, attempts=5, workers=1)
GIVING_UP_TWICE = Bounds(requests=1, writes=3, attempts=5)
FAILING_OVER_TWICE = Bounds(requests=1, writes=1, attempts=2, workers=1)


def outcome(model: CutOver, most_states: int = 60_000) -> Found[State]:
    return explore(model, most_states=most_states)


@pytest.mark.parametrize("same_cell", [False, True], ids=["two cells", "one cell"])
def test_no_two_homes_no_lost_write_and_always_a_way_on(same_cell: bool) -> None:
    found = outcome(CutOver(SMALL, same_cell=same_cell))
    assert found.broken is None, "\n".join((found.broken or "", *found.trace))
    assert found.states > 30_000


@pytest.mark.slow
@pytest.mark.parametrize("bounds", [LARGE, LARGEST], ids=["two requests", "three take-overs"])
@pytest.mark.parametrize("same_cell", [False, True], ids=["two cells", "one cell"])
def test_the_same_with_more_of_everything(same_cell: bool, bounds: Bounds) -> None:
    found = outcome(CutOver(bounds, same_cell=same_cell), most_states=5_000_000)
    assert found.broken is None, "\n".join((found.broken or "", *found.trace))


@pytest.mark.parametrize("bounds", [FAILING_OVER, pytest.param(FAILING_OVER_TWICE, marks=pytest.mark.slow)])
@pytest.mark.parametrize("standby_of", [SOURCE, TARGET], ids=["source", "target"])
def test_a_cell_failed_over_to_a_standby_that_is_behind(standby_of: int, bounds: Bounds) -> None:
    found = outcome(CutOver(bounds, standby_of=standby_of), most_states=1_000_000)
    assert found.broken is None, "\n".join((found.broken or "", *found.trace))
    assert found.states > 15_000


@pytest.mark.parametrize(
    ("standby_of", "without", "broken"),
    [
        (SOURCE, "wait for cut-overs", "two homes accept writes"),
        (SOURCE, "rows set by the approval", "two homes accept writes"),
        (TARGET, "wait for cut-overs", "an acknowledged write is lost"),
        (TARGET, "require_home", "an acknowledged write is lost"),
        (TARGET, "wait for the standby", "no way on"),
    ],
)
def test_a_guard_against_a_standby_left_out_is_missed(standby_of: int, without: str, broken: str) -> None:
    found = outcome(CutOver(FAILING_OVER, standby_of=standby_of, without=without))
    assert found.broken == broken
    assert found.trace


@pytest.mark.parametrize("heard_of_another", [False, True])
def test_a_loss_that_is_accepted_or_restored(heard_of_another: bool) -> None:
    found = outcome(Lost(LOSING, heard_of_another=heard_of_another))
    assert found.broken is None, "\n".join((found.broken or "", *found.trace))
    assert found.states > 1_000


@pytest.mark.parametrize(
    ("without", "broken"),
    [
        ("shut_lost", "two homes accept writes"),
        ("look before the loss", "two homes accept writes"),
        ("shut_kept", "a home that was removed is open"),
    ],
)
def test_a_guard_against_a_loss_left_out_is_missed(without: str, broken: str) -> None:
    found = outcome(Lost(LOSING, without=without))
    assert found.broken == broken
    assert found.trace


@pytest.mark.parametrize("bounds", [GIVING_UP, pytest.param(GIVING_UP_TWICE, marks=pytest.mark.slow)])
@pytest.mark.parametrize("heard_of_another", [False, True])
def test_a_loss_where_the_other_home_goes_too_and_a_person_gives_the_tenant_up(
    heard_of_another: bool, bounds: Bounds
) -> None:
    found = outcome(Lost(bounds, heard_of_another=heard_of_another, kept_goes=True), most_states=200_000)
    assert found.broken is None, "\n".join((found.broken or "", *found.trace))
    assert found.states > 30_000


@pytest.mark.parametrize(
    ("without", "broken"),
    [
        ("look before giving up", "an acknowledged write is lost"),
        ("shut_kept after a cancel", "a home that was removed is open"),
    ],
)
def test_a_guard_against_giving_up_left_out_is_missed(without: str, broken: str) -> None:
    found = outcome(Lost(GIVING_UP, kept_goes=True, without=without))
    assert found.broken == broken
    assert any("cancels" in label for label in found.trace)


def test_the_model_gives_up_and_what_is_restored_then_is_open() -> None:
    class Restores(Lost):
        def broken(self, state: State) -> str | None:
            ended = state.given_up and state.phase == cutover.COMPLETED
            return "open" if ended and CutOver.is_good(self, state) else super().broken(state)

    found = outcome(Restores(GIVING_UP, kept_goes=True))
    assert found.broken == "open"


@pytest.mark.parametrize(
    ("without", "broken"),
    [
        ("lock", "two homes accept writes"),
        ("lock before the row", "two homes accept writes"),
        ("marker", "an acknowledged write is lost"),
        ("compare at the flip", "two homes accept writes"),
        ("abort first", "two homes accept writes"),
    ],
)
def test_a_guard_left_out_is_missed(without: str, broken: str) -> None:
    found = outcome(CutOver(SMALL, same_cell=False, without=without))
    assert found.broken == broken
    assert found.trace


def test_a_tenant_that_nobody_lets_in_any_more_is_found() -> None:
    """A worker that gives up without undoing: the source stays shut, and no later step opens it."""

    class GivesUp(CutOver):
        def _reopen_source(self, state: State, worker: cutover.Worker) -> tuple[State, cutover.Worker]:
            return state, worker._replace(at="begin")

    found = outcome(GivesUp(SMALL, same_cell=False))
    assert found.broken == "no way on"


def test_the_model_gets_there() -> None:
    """Nothing is easier to prove of a model than what it never comes to."""

    class Arrives(CutOver):
        def broken(self, state: State) -> str | None:
            there = state.home == TARGET and self.is_good(state) and bool(state.acknowledged)
            return "moved" if there else super().broken(state)

    found = outcome(Arrives(SMALL, same_cell=False))
    assert found.broken == "moved"
    assert any("flip" in label for label in found.trace)


def test_the_models_words_are_the_codes() -> None:
    for act in (
        "close_source",
        "drain",
        "open_target",
        "retire",
        "reopen_source",
        "shut_lost",
        "open_kept",
        "shut_kept",
    ):
        assert callable(getattr(fence, act))
    assert callable(acceptance.accept_loss)
    assert callable(acceptance.give_up)
    assert {cutover.READY, cutover.CUTTING_OVER, RETAINING} <= {phase.value for phase in Phase}
