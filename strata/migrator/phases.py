"""The phases of a move, which of them may follow which, and which can be undone."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    PENDING = "pending"
    PREPARING = "preparing"
    COPYING = "copying"
    CATCHING_UP = "catching_up"
    VERIFYING = "verifying"
    READY = "ready"
    CUTTING_OVER = "cutting_over"
    RETAINING = "retaining"
    """The tenant lives in the new home; the old one is kept up to date, so that it can go back."""
    COMPLETING = "completing"
    """There is no way back any more: the old home is being removed."""
    COMPLETED = "completed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    ROLLING_BACK = "rolling_back"
    WITHDRAWING = "withdrawing"
    """The tenant is back in its old home; what was made of the new one is being removed."""
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    """Stopped where a person must decide; `failed_in` says where, and `retry` goes on."""


class Stage(StrEnum):
    """The coarse states that staff know (requirement M2)."""

    PENDING = "pending"
    SYNCING = "syncing"
    VERIFYING = "verifying"
    CUTOVER = "cutover"
    COMPLETE = "complete"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"


class Wish(StrEnum):
    """What a person asked of a move that is under way; the worker fulfils it where the phase allows."""

    CUT_OVER = "cutover"
    ROLL_BACK = "rollback"
    COMPLETE = "complete"
    CANCEL = "cancel"
    RETRY = "retry"
    ACCEPT_LOSS = "accept-loss"
    """The home that the tenant lives in is lost (`home-lost`): it lives on in the other one, as that was left."""


_P = Phase

BEFORE_THE_FLIP = frozenset({
    _P.PENDING, _P.PREPARING, _P.COPYING, _P.CATCHING_UP, _P.VERIFYING, _P.READY, _P.CUTTING_OVER, _P.CANCELLING,
})  # fmt: skip
"""The tenant lives in its old home, and nothing that happens to the new one matters."""

CANCELLABLE = BEFORE_THE_FLIP - {_P.CUTTING_OVER, _P.CANCELLING}
"""A cut-over is not interrupted: within a second it has flipped or gone back to `ready`, where a cancel is heard."""

REVERSIBLE = frozenset({_P.RETAINING})
"""After the flip, and the tenant can still go back without losing what was written since."""

AT_THE_FLIP = {_P.CUTTING_OVER: _P.READY, _P.ROLLING_BACK: _P.RETAINING}
"""The phases in which the fence may be shut, and where an aborted attempt goes back to."""

LOADING = frozenset({_P.PREPARING, _P.COPYING, _P.CATCHING_UP, _P.VERIFYING})
"""A move costs the servers at both ends much more than its stream; how many do so at a time has a budget."""

LIVES_ON = {_P.RETAINING: _P.WITHDRAWING, _P.COMPLETING: _P.WITHDRAWING, _P.WITHDRAWING: _P.COMPLETING}
"""Where a move that failed in one of these goes on when a person accepts that the tenant's home is lost: by a flip to the
other home, after which what there is of the lost one is removed."""

ENDS_BY = {_P.RETAINING: _P.COMPLETING, _P.COMPLETING: _P.COMPLETING, _P.WITHDRAWING: _P.WITHDRAWING}
"""Where a move that failed in one of these goes on when neither home is there and a person gives it up: no flip is made."""

FINISHED = frozenset({_P.COMPLETED, _P.CANCELLED, _P.ROLLED_BACK})

_AFTER: dict[Phase, frozenset[Phase]] = {
    _P.PENDING: frozenset({_P.PREPARING, _P.CANCELLING}),
    _P.PREPARING: frozenset({_P.COPYING, _P.CANCELLING}),
    _P.COPYING: frozenset({_P.CATCHING_UP, _P.CANCELLING}),
    # Back to copying: the stream has a hole (a slot was lost), and only a new copy closes it.
    _P.CATCHING_UP: frozenset({_P.VERIFYING, _P.COPYING, _P.CANCELLING}),
    _P.VERIFYING: frozenset({_P.READY, _P.COPYING, _P.CANCELLING}),
    _P.READY: frozenset({_P.CUTTING_OVER, _P.COPYING, _P.CANCELLING}),
    _P.CUTTING_OVER: frozenset({_P.RETAINING, _P.READY}),
    _P.RETAINING: frozenset({_P.ROLLING_BACK, _P.COMPLETING}),
    _P.ROLLING_BACK: frozenset({_P.WITHDRAWING, _P.RETAINING}),
    _P.COMPLETING: frozenset({_P.COMPLETED}),
    _P.WITHDRAWING: frozenset({_P.ROLLED_BACK}),
    _P.CANCELLING: frozenset({_P.CANCELLED}),
    _P.COMPLETED: frozenset(),
    _P.CANCELLED: frozenset(),
    _P.ROLLED_BACK: frozenset(),
    # And back to wherever it failed: see `resumes_in`. Or on where the tenant lives on: see `LIVES_ON`.
    _P.FAILED: frozenset({_P.CANCELLING}),
}

_STAGES = {
    Stage.PENDING: {_P.PENDING},
    Stage.SYNCING: {_P.PREPARING, _P.COPYING, _P.CATCHING_UP},
    Stage.VERIFYING: {_P.VERIFYING, _P.READY},
    Stage.CUTOVER: {_P.CUTTING_OVER, _P.RETAINING, _P.COMPLETING, _P.ROLLING_BACK, _P.WITHDRAWING},
    Stage.COMPLETE: {_P.COMPLETED},
    Stage.CANCELLED: {_P.CANCELLING, _P.CANCELLED},
    Stage.ROLLED_BACK: {_P.ROLLED_BACK},
    Stage.FAILED: {_P.FAILED},
}


def may_follow(before: Phase, after: Phase) -> bool:
    if after is Phase.FAILED:
        return before not in FINISHED and before not in AT_THE_FLIP
    return after in _AFTER[before]


def resumes_in(failed_in: Phase) -> Phase:
    """Where `retry` takes a failed move. What was copied before it failed is not trusted: its stream has been let go."""
    return Phase.PREPARING if failed_in in BEFORE_THE_FLIP - {Phase.CANCELLING} else failed_in


def half_done_in(found_in: Phase, epoch: int | None, target_epoch: int | None) -> Phase | None:
    """Of a move that was taken over: the phase of a crossing whose acts may have to be undone, before anything else.

    The catalog calls a crossing off before the cells do, so that the phase alone proves nothing: the worker may have died
    in between. What tells is that e' was given out, and that the tenant does not live at it.
    """
    if found_in in AT_THE_FLIP:
        return found_in
    if found_in in CANCELLABLE and epoch is not None:
        return Phase.CUTTING_OVER
    if found_in in REVERSIBLE and epoch != target_epoch:
        return Phase.ROLLING_BACK
    return None


def stage_of(phase: Phase) -> Stage:
    return next(stage for stage, phases in _STAGES.items() if phase in phases)
