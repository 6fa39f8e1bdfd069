"""Compare and set: one transition of a move, with all that belongs to it, in the caller's transaction of the catalog."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import msgspec
from sqlalchemy import case, delete, select, update

from strata.migrator.errors import SupersededError
from strata.migrator.models import MoveRow
from strata.migrator.moves import Failure, Move, Place, append_event, as_move
from strata.migrator.phases import (
    AT_THE_FLIP,
    BEFORE_THE_FLIP,
    ENDS_BY,
    FINISHED,
    LIVES_ON,
    Phase,
    Wish,
    may_follow,
    resumes_in,
)
from strata.platform.errors import StrataError
from strata.tenancy.catalog.audit import SYSTEM, record
from strata.tenancy.catalog.tables import CellRow, PlacementRow
from strata.tenancy.events.tables import OutboxRemainderRow
from strata.tenancy.model import Holder
from strata.tenancy.provisioning.exclusion import release

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

COPIES_AGAIN = frozenset({Phase.COPYING, Phase.CATCHING_UP, Phase.VERIFYING, Phase.READY})
_FULFILLED = {
    Wish.CANCEL: {Phase.CANCELLING},
    Wish.ROLL_BACK: {Phase.WITHDRAWING, Phase.COMPLETING},
    Wish.COMPLETE: {Phase.COMPLETING, Phase.WITHDRAWING},
}
"""A wish stands until one of these; `retry` and `accept-loss` are fulfilled by whatever comes next."""
_AT_ONCE = frozenset({Wish.RETRY, Wish.ACCEPT_LOSS})
_AUDITED = FINISHED | {Phase.RETAINING, Phase.WITHDRAWING, Phase.FAILED}


class Flip(msgspec.Struct, frozen=True):
    """The tenant's placement becomes `to` at the attempt's epoch; the one act that cannot be taken back."""

    to: Place
    epoch_before: int


class Advance(msgspec.Struct, frozen=True):
    """What a step came to: the phase that follows, and what is written with it."""

    phase: Phase
    what: str
    epoch: int | None = None
    """Entering a cut-over: e', fresh from the sequence."""
    attempt: int | None = None
    """Leaving one without a flip: the attempt that replaces the aborted one."""
    flip: Flip | None = None
    failure: Failure | None = None
    cell_gone: str | None = None
    """Ending: the dedicated cell whose database was removed."""
    values: dict[str, Any] = {}
    """Other columns of the move."""
    detail: dict[str, Any] = {}
    """For the event: counts, times, reasons."""

    @classmethod
    def called_off(cls, move: Move, error: Exception, attempt: int) -> Self:
        return cls(AT_THE_FLIP[move.phase], "called off", attempt=attempt, detail=_reason(error))

    @classmethod
    def copy_again(cls, error: Exception) -> Self:
        return cls(Phase.COPYING, "copying again", detail=_reason(error))

    @classmethod
    def failed(cls, failure: Failure) -> Self:
        detail = {"code": failure.code, "reason": failure.detail, "in": failure.phase}
        return cls(Phase.FAILED, "failed", failure=failure, detail=detail)


def _reason(error: Exception) -> dict[str, Any]:
    if isinstance(error, StrataError):
        return {"code": error.code, "reason": error.detail}
    return {"code": type(error).__name__, "reason": str(error)}


async def compare_and_set(session: AsyncSession, before: Move, advance: Advance) -> Move:
    """Write the transition when `before` still stands at its attempt; SupersededError when it does not."""
    _allowed(before, advance)
    row = await session.scalar(
        update(MoveRow)
        .where(MoveRow.id == before.id, MoveRow.phase == before.phase, MoveRow.attempt == before.attempt)
        .values(**_columns(before, advance))
        .returning(MoveRow)
    )
    if row is None:
        raise SupersededError(before.id, before.attempt)
    if advance.flip is not None:
        await _flip(session, row, advance.flip)
    if advance.cell_gone is not None:
        await _forget_cell(session, advance.cell_gone)
    append_event(session, row, SYSTEM, advance.what, advance.detail)
    if advance.phase in _AUDITED:
        record(
            session,
            SYSTEM,
            f"tenant.move.{advance.phase.value.replace('_', '-')}",
            before.slug,
            tenant_id=before.tenant_id,
            detail={"move": str(before.id), "from": str(before.source), "to": str(before.target), **advance.detail},
        )
    if advance.phase in FINISHED:
        await release(session, Holder.MOVE, str(before.id))
    return as_move(row, before.slug)


def has_happened(before: Move, advance: Advance, now: Move) -> bool:
    """Whether `advance` was committed after all, going by what the catalog has `now`; SupersededError: nor will it be."""
    if now.attempt not in {advance.attempt or before.attempt, before.attempt}:
        raise SupersededError(before.id, before.attempt)
    if advance.attempt is not None:
        return now.attempt == advance.attempt
    return now.phase is advance.phase and now.phase is not before.phase


def _allowed(before: Move, advance: Advance) -> None:
    resumed = before.failed_in is not None and advance.phase is resumes_in(before.failed_in)
    again = before.phase is advance.phase is Phase.COPYING
    too_late = advance.phase is Phase.CANCELLING and before.failed_in not in {None, *BEFORE_THE_FLIP}
    given_up = advance.flip is not None and before.failed_in in LIVES_ON
    lives_on = given_up and advance.phase is LIVES_ON[before.failed_in or before.phase]
    ends = before.failed_in in ENDS_BY and advance.phase is ENDS_BY[before.failed_in or before.phase]
    if too_late or not (resumed or again or lives_on or ends or may_follow(before.phase, advance.phase)):
        message = f"a move does not go from {before.phase} to {advance.phase}"
        raise AssertionError(message)


def _columns(before: Move, advance: Advance) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "phase": advance.phase,
        # What fails while it is failed (a loss that cannot be accepted) has failed where it first did.
        "failed_in": (before.failed_in or before.phase) if advance.phase is Phase.FAILED else None,
        "failure": msgspec.to_builtins(advance.failure) if advance.failure else None,
        "not_before": None,
        **advance.values,
    }
    if advance.epoch is not None:
        columns["epoch"] = advance.epoch
    if advance.attempt is not None:
        columns["attempt"] = advance.attempt
    if before.wish in _AT_ONCE or advance.phase in _FULFILLED.get(before.wish or Wish.RETRY, ()):
        columns["wish"] = None
    elif advance.phase is Phase.FAILED:
        # A person decides anew: what was wished of a move that went well is no answer to what has failed.
        cancel = case((MoveRow.wish == Wish.CANCEL, MoveRow.wish))
        columns["wish"] = cancel if before.phase in BEFORE_THE_FLIP else None
    if advance.phase in FINISHED:
        columns |= {"finished_at": datetime.now(UTC), "wish": None}
    if advance.flip is not None:
        # Of the crossing before; this one's is told when the tenant has been let in (steps/settling.py).
        columns["write_block_ms"] = None
    if advance.flip is not None and advance.flip.to == before.target:
        columns["target_epoch"] = advance.epoch or before.epoch
    if advance.phase is Phase.RETAINING and advance.flip is not None:
        columns["retained_until"] = datetime.now(UTC) + timedelta(seconds=before.retention_s)
    return columns


async def _flip(session: AsyncSession, row: MoveRow, flip: Flip) -> None:
    """The placement, by compare-and-set on the epoch that it had when the cut-over began."""
    cell_id = await session.scalar(select(CellRow.id).where(CellRow.name == flip.to.cell))
    flipped = await session.scalars(
        update(PlacementRow)
        .where(
            PlacementRow.tenant_id == row.tenant_id,
            PlacementRow.epoch == flip.epoch_before,
            PlacementRow.epoch < row.epoch,
        )
        .values(cell_id=cell_id, tier=flip.to.tier, schema_name=flip.to.schema_name, epoch=row.epoch)
        .returning(PlacementRow.tenant_id)
    )
    if flipped.first() is None:
        raise SupersededError(row.id, row.attempt)


async def _forget_cell(session: AsyncSession, name: str) -> None:
    """With the end of the move, and not before: whoever takes it over asks where its two homes are."""
    cell = select(CellRow.id).where(CellRow.name == name).scalar_subquery()
    # Of a database that is lost nothing was delivered, and nothing can be any more.
    await session.execute(delete(OutboxRemainderRow).where(OutboxRemainderRow.cell_id == cell))
    lived_in = select(PlacementRow.tenant_id).where(PlacementRow.cell_id == CellRow.id).exists()
    await session.execute(delete(CellRow).where(CellRow.name == name, ~lived_in))
