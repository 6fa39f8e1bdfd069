"""What a failure of a step means for the move: try again, copy again, or stop and ask a person."""

from __future__ import annotations

from enum import Enum, auto

import psycopg
from sqlalchemy.exc import DBAPIError

from strata.migrator.copier import RowsLostError
from strata.migrator.errors import CopyAgainError, HomeLostError, OtherHomeGoneError, SupersededError
from strata.migrator.losses import can_be_accepted
from strata.migrator.moves import Failure, Move
from strata.migrator.phases import BEFORE_THE_FLIP, Phase
from strata.migrator.replication_errors import (
    AttemptSupersededError,
    ForeignRowError,
    ProtocolError,
    ReplicationError,
    SchemaChangedError,
    TruncateError,
)
from strata.platform.database.availability import is_unreachable
from strata.platform.database.failures import LOST
from strata.platform.errors import StrataError, UnavailableError

ATTEMPT_OVER = "SM007"
_CLOSED_BY_SERVER = ("08", "57P", "53300", "55P03", "40P01", "57014")
"""Gone, starting up, full; a lock or a statement that took longer than it may; a deadlock. All pass by themselves."""


class Verdict(Enum):
    AGAIN = auto()
    """It passes by itself."""
    COPY_AGAIN = auto()
    """What was copied and streamed is not whole any more."""
    SUPERSEDED = auto()
    """Somebody else has the move."""
    ASK = auto()
    """A person must decide."""


_COPY_AGAIN = (CopyAgainError, RowsLostError)
_A_PERSON_KNOWS = (ForeignRowError, ProtocolError, SchemaChangedError, TruncateError)
"""A copy would meet the same again."""
_SUPERSEDED = (SupersededError, AttemptSupersededError)
_AGAIN = (
    UnavailableError,
    ReplicationError,
    *LOST,
    psycopg.OperationalError,
)


def verdict_on(error: Exception) -> Verdict:
    sqlstate = str(getattr(error, "sqlstate", None) or "")
    if isinstance(error, _SUPERSEDED) or sqlstate == ATTEMPT_OVER:
        return Verdict.SUPERSEDED
    if isinstance(error, ReplicationError) and not error.try_again:
        return Verdict.ASK if isinstance(error, _A_PERSON_KNOWS) else Verdict.COPY_AGAIN
    if isinstance(error, _COPY_AGAIN):
        return Verdict.COPY_AGAIN
    gone = isinstance(error, DBAPIError) and is_unreachable(error)
    if gone or isinstance(error, _AGAIN) or sqlstate.startswith(_CLOSED_BY_SERVER):
        return Verdict.AGAIN
    return Verdict.ASK


def failure_of(move: Move, error: Exception) -> Failure:
    """What failed, where, in what state the tenant is, and which command to type next (issue 4, point 8)."""
    named = error if isinstance(error, StrataError) else None
    short = str(move.id)
    phase = move.failed_in or move.phase
    if phase in BEFORE_THE_FLIP:
        tenant = f"«{move.slug}» works where it was, {move.source}; nothing of it has been touched."
        command = f"strata migrate retry {short}, or strata migrate cancel {short}"
    else:
        tenant = f"«{move.slug}» works in its new home, {move.target}; what is left to do concerns the old one."
        command = f"strata migrate retry {short}"
    if phase is Phase.WITHDRAWING:
        tenant = f"«{move.slug}» works where it was before, {move.source}; what is left is to remove the other home."
    stays_closed = can_be_accepted(move)
    if stays_closed or isinstance(error, (HomeLostError, OtherHomeGoneError)):
        tenant = f"«{move.slug}» is closed: neither {move.target} nor {move.source} lets it in."
    if isinstance(error, (HomeLostError, OtherHomeGoneError)):
        command = _after_a_loss(move, phase, error)
    return Failure(
        phase=phase,
        code=named.code if named else type(error).__name__,
        detail=named.detail if named else f"{type(error).__name__}: {error}",
        tenant=tenant,
        next=command,
        extra=named.extra if named else {},
    )


def _after_a_loss(move: Move, phase: Phase, error: HomeLostError | OtherHomeGoneError) -> str:
    lost, kept = (move.source, move.target) if phase is Phase.WITHDRAWING else (move.target, move.source)
    restored = (
        f"strata migrate retry {move.id}, once its rows and its row of strata.fence are in {lost.cell} again, from the server "
        "that had the arrival (started apart, and not registered: others have written on the present one since) or a backup"
    )
    if isinstance(error, OtherHomeGoneError):
        return (
            f"{restored}; or strata migrate cancel {move.id}, which ends the move and leaves the tenant closed, and then strata "
            f"tenant delete {move.slug}"
        )
    return (
        f"strata migrate accept-loss {move.id}, and it lives on in {kept} as that was left (--dry-run says what is lost); or "
        f"{restored}"
    )
