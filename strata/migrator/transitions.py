"""Compare and set: one transition of a move, with all that belongs to it, in the caller's transaction of the catalog."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import msgspec
from sqlalchemy import case, delete, exists, insert, inspect, literal, select, true, update
from sqlalchemy.orm import aliased

from strata.migrator.errors import SupersededError
from strata.migrator.models import MoveEventRow, MoveRow
from strata.migrator.moves import Failure, Move, Place, as_move
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
from strata.tenancy.catalog.audit import SYSTEM, entry
from strata.tenancy.catalog.tables import AuditRow, CellRow, PlacementRow
from strata.tenancy.events.tables import OutboxRemainderRow
from strata.tenancy.model import Holder
from strata.tenancy.provisioning.exclusion import release

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import CTE, ColumnElement, Insert, Select
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.sql.dml import ReturningUpdate

    from strata.tenancy.catalog.tables import CatalogModel

COPIES_AGAIN = frozenset({Phase.COPYING, Phase.CATCHING_UP, Phase.VERIFYING, Phase.READY})
_FULFILLED = {
    Wish.CANCEL: {Phase.CANCELLING},
    Wish.ROLL_BACK: {Phase.WITHDRAWING, Phase.COMPLETING},
    Wish.COMPLETE: {Phase.COMPLETING, Phase.WITHDRAWING},
}
"""A wish stands until one of these; `retry`, and whatever is asked of a failed move, is fulfilled by what comes next."""
_AT_ONCE = frozenset({Wish.RETRY, Wish.ACCEPT_LOSS})
_NOBODYS = -1
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
    """Write the transition when `before` still stands at its attempt; SupersededError when it does not.

    In one statement, since a tenant waits for its flip. To be committed only if this returns.
    """
    _allowed(before, advance)
    found = (await session.execute(_statement(before, advance, before.attempt))).one_or_none()
    row, placed = (None, False) if found is None else found
    if row is None or not placed:
        raise SupersededError(before.id, before.attempt)
    if advance.cell_gone is not None:
        await _forget_cell(session, advance.cell_gone)
    if advance.phase in FINISHED:
        await release(session, Holder.MOVE, str(before.id))
    return as_move(row, before.slug)


async def rehearse(session: AsyncSession, before: Move, advance: Advance) -> None:
    """Have the statement compiled here and planned there, with a number that no attempt has: it changes nothing."""
    await session.execute(_statement(before, advance, _NOBODYS))


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
    if advance.phase is Phase.FAILED:
        # A person decides anew: what was wished of a move that went well is no answer to what has failed.
        cancel = case((MoveRow.wish == Wish.CANCEL, MoveRow.wish))
        columns["wish"] = cancel if before.phase in BEFORE_THE_FLIP else None
    elif before.phase is Phase.FAILED or before.wish in _AT_ONCE:
        # Not what a person has asked since: the step that this ends knew nothing of it.
        columns["wish"] = case((MoveRow.wish.is_distinct_from(before.wish), MoveRow.wish))
    elif advance.phase in _FULFILLED.get(before.wish or Wish.RETRY, ()):
        columns["wish"] = None
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


def _statement(before: Move, advance: Advance, attempt: int) -> Select[MoveRow, bool]:
    """The move, its event, its audit row and the tenant's placement; `placed` is false when that was not as it should be."""
    moved = (
        update(MoveRow)
        .where(MoveRow.id == before.id, MoveRow.phase == before.phase, MoveRow.attempt == attempt)
        .values(**_columns(before, advance))
        .returning(MoveRow)
        .cte("moved")
    )
    event = {"actor": SYSTEM, "what": advance.what, "detail": msgspec.to_builtins(advance.detail)}
    told = [_told_of(moved, MoveEventRow, event, move_id="id", attempt="attempt", phase="phase").cte("told")]
    if advance.phase in _AUDITED:
        action = f"tenant.move.{advance.phase.value.replace('_', '-')}"
        detail = {"move": str(before.id), "from": str(before.source), "to": str(before.target), **advance.detail}
        audit = entry(SYSTEM, action, before.slug, tenant_id=before.tenant_id, detail=detail)
        told.append(_told_of(moved, AuditRow, audit).cte("audited"))
    placed: ColumnElement[bool] = true()
    if advance.flip is not None:
        placed = exists(select(_placed(moved, advance.flip).cte("placed").c.tenant_id))
    return select(aliased(MoveRow, moved), placed.label("placed")).add_cte(*told)


def _told_of(moved: CTE, table: type[CatalogModel], values: dict[str, Any], **taken: str) -> Insert:
    """A row for the move that was written, if it was; `taken` are columns of its own."""
    columns = inspect(table).columns
    given = select(
        *(moved.c[name] for name in taken.values()),
        *(literal(value, columns[name].type) for name, value in values.items()),
    )
    return insert(table).from_select([*taken, *values], given.select_from(moved), include_defaults=False)


def _placed(moved: CTE, flip: Flip) -> ReturningUpdate[tuple[UUID]]:
    """The placement, by compare-and-set on the epoch that it had when the cut-over began."""
    return (
        update(PlacementRow)
        .where(
            PlacementRow.tenant_id == moved.c.tenant_id,
            PlacementRow.epoch == flip.epoch_before,
            PlacementRow.epoch < moved.c.epoch,
        )
        .values(
            cell_id=select(CellRow.id).where(CellRow.name == flip.to.cell).scalar_subquery(),
            tier=flip.to.tier,
            schema_name=flip.to.schema_name,
            epoch=moved.c.epoch,
        )
        .returning(PlacementRow.tenant_id)
    )


async def _forget_cell(session: AsyncSession, name: str) -> None:
    """With the end of the move, and not before: whoever takes it over asks where its two homes are."""
    cell = select(CellRow.id).where(CellRow.name == name).scalar_subquery()
    # Of a database that is lost nothing was delivered, and nothing can be any more.
    await session.execute(delete(OutboxRemainderRow).where(OutboxRemainderRow.cell_id == cell))
    lived_in = select(PlacementRow.tenant_id).where(PlacementRow.cell_id == CellRow.id).exists()
    await session.execute(delete(CellRow).where(CellRow.name == name, ~lived_in))
