"""What goes with a home that is lost, and where the tenant would live on: for whoever must accept it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from strata.migrator.errors import HomeLostError, OtherHomeGoneError
from strata.migrator.models import Side
from strata.migrator.moves import CROSSED, Move, MoveEvent
from strata.migrator.phases import LIVES_ON, Phase

CAME_BACK = "came back"
"""In the move's progress: the position in the log of a home that is lost up to which the other one follows, and when."""
GIVEN_UP = "given up"
"""In the move's progress: neither home is there, and a person has said that the move is to end all the same."""
LOST = frozenset({HomeLostError.code, OtherHomeGoneError.code})
"""Codes of failures with which a tenant is closed, and its loss can be accepted."""
_FLIPS = frozenset({*CROSSED, "loss accepted"})


class CameBack(msgspec.Struct, frozen=True):
    position: str
    at: str


class Loss(msgspec.Struct, frozen=True):
    lost: str
    """The place that the tenant lives in by the catalog."""
    lives_on_in: str
    since: datetime | None
    """When it came to live there: nothing that was written before is lost."""
    came_back: CameBack | None
    """What was written since, and is in the other home all the same."""
    gone: bool = False
    """By the last look the other home is not there either: accepting it finds that again, unless it is back."""

    @property
    def sentence(self) -> str:
        if self.gone:
            return (
                f"Neither {self.lost} nor {self.lives_on_in} is there: unless one of them is brought back, the tenant cannot live "
                "on. What remains is a backup, or the disk of the old primary."
            )
        since = "it came to live there" if self.since is None else f"{self.since:%Y-%m-%d %H:%M:%S} UTC"
        kept = ""
        if self.came_back is not None:
            kept = (
                f", but for what had come back by {self.came_back.at}: everything up to position {self.came_back.position} of "
                "its log"
            )
        return (
            f"The tenant lives on in {self.lives_on_in}. What was written in {self.lost} since {since} is given up{kept}. The "
            "rest is on the disk of the old primary, or in a backup of it, and nowhere else: keep that."
        )


def can_be_accepted(move: Move) -> bool:
    failed = move.phase is Phase.FAILED and move.failed_in in LIVES_ON
    return failed and move.failure is not None and move.failure.code in LOST


def neither_is_there(move: Move) -> bool:
    """As the last who looked found."""
    return can_be_accepted(move) and move.failure is not None and move.failure.code == OtherHomeGoneError.code


def being_removed(side: Side) -> str:
    """In the move's progress: the home at that end is going, or lost; it is whole no more."""
    return f"{side} being removed"


def loss_of(move: Move, events: Iterable[MoveEvent]) -> Loss | None:
    """None: the move has not failed of a home that is lost."""
    if not can_be_accepted(move):
        return None
    since = max((event.at for event in events if event.what in _FLIPS), default=None)
    if LIVES_ON[move.failed_in or move.phase] is Phase.COMPLETING:
        # Nothing streams behind a rollback: the other home stands as it was left.
        gone = neither_is_there(move) or bool(move.progress.get(being_removed(Side.TARGET)))
        return Loss(str(move.source), str(move.target), since, None, gone)
    gone = neither_is_there(move) or bool(move.progress.get(being_removed(Side.SOURCE)))
    came_back = move.progress.get(CAME_BACK)
    return Loss(
        str(move.target),
        str(move.source),
        since,
        None if came_back is None else msgspec.convert(came_back, CameBack),
        gone,
    )
