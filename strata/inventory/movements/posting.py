"""Moving stock: one statement per call, whatever the lines (ADR 0005 on quantities; the SQL files on the protocol)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

import msgspec
from sqlalchemy import LargeBinary, Text, Uuid, bindparam, text

from strata.inventory.approvals.errors import ApprovalNeededError
from strata.inventory.idempotency import IdempotencyConflictError, RequestKey
from strata.inventory.movements.errors import (
    AlreadyReversedError,
    LinesRefusedError,
    MovementCancelsOutError,
    MovementNotFoundError,
    NotReversibleError,
    StockShortageError,
    line_error,
)
from strata.inventory.movements.outcomes import (
    AlreadyReversed,
    BatchOutcome,
    CancelledOut,
    KeyConflict,
    NotReversible,
    Outcome,
    Posted,
    PostedMovement,
    Refused,
    Replayed,
    Short,
    Unknown,
)
from strata.inventory.movements.rules import batch_problems, needs_approval, rule_errors
from strata.inventory.movements.schemas import MovementDocument, MovementIn, ReversalIn
from strata.platform.errors import StrataError
from strata.platform.ids import new_id
from strata.tenancy.session import TenantSession

# The answers travel as text: how a driver decodes jsonb is a setting of its connection.
_PARAMETERS = (
    bindparam("tenant", type_=Uuid),
    bindparam("actor", type_=Text),
    bindparam("movement", type_=Text),
    bindparam("key", type_=Text),
    bindparam("request_hash", type_=LargeBinary),
)
_POST = text(
    "SELECT CAST(post_movement(:tenant, :actor, CAST(:movement AS jsonb), :key, :request_hash) AS text)"
).bindparams(*_PARAMETERS)
_REVERSE = text(
    "SELECT CAST(reverse_movement(:tenant, :actor, :original, CAST(:movement AS jsonb), :key, :request_hash) AS text)"
).bindparams(*_PARAMETERS, bindparam("original", type_=Uuid))
_POST_MANY = text("SELECT CAST(post_movements(:tenant, :actor, CAST(:movements AS jsonb)) AS text)").bindparams(
    bindparam("tenant", type_=Uuid), bindparam("actor", type_=Text), bindparam("movements", type_=Text)
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Outcome).decode
_decode_batch = msgspec.json.Decoder(list[BatchOutcome]).decode


async def post_movement(
    session: TenantSession, movement: MovementIn, *, actor: str, key: RequestKey | None = None, approved: bool = False
) -> tuple[PostedMovement, bool]:
    """Post, and tell whether the answer is an earlier one kept under the key.

    Raises what the domain calls it (errors.py); the caller lets it out of the transaction, which undoes the claim of
    the key too. `movement` has passed `check_lines`. `approved`: what needs approval has it.
    """
    if errors := list(rule_errors(session, movement)):
        raise LinesRefusedError(errors)
    if not approved and (why := needs_approval(session, movement)) is not None:
        raise ApprovalNeededError(why)
    document = MovementDocument(
        new_id(),
        movement.kind,
        movement.lines,
        movement.reference,
        movement.reason,
        movement.note,
        movement.occurred_at,
        movement.custom,
    )
    answer = await session.scalar(
        _POST,
        {
            "tenant": session.info["tenant_id"],
            "actor": actor,
            "movement": _encode(document).decode(),
            "key": key.key if key else None,
            "request_hash": key.request_hash if key else None,
        },
    )
    return _settled(_decode(answer), movement_id=document.id, key=key)


async def reverse_movement(
    session: TenantSession, movement_id: UUID, reversal: ReversalIn, *, actor: str, key: RequestKey | None = None
) -> tuple[PostedMovement, bool]:
    """Post the opposite of a movement, once. Errors as those of `post_movement`, and three of its own."""
    document = {"id": new_id(), **msgspec.structs.asdict(reversal)}
    answer = await session.scalar(
        _REVERSE,
        {
            "tenant": session.info["tenant_id"],
            "actor": actor,
            "original": movement_id,
            "movement": _encode(document).decode(),
            "key": key.key if key else None,
            "request_hash": key.request_hash if key else None,
        },
    )
    return _settled(_decode(answer), movement_id=movement_id, key=key)


async def post_movements(
    session: TenantSession, movements: Sequence[MovementDocument], *, actor: str
) -> list[BatchOutcome]:
    """Post many, in order, in one statement; an outcome for each. A refused one leaves the others alone.

    Each is judged after those before it. Once in a transaction: two calls could meet another's two the other way
    round. The documents are the caller's to have checked; 500 to 2,000 movements at a time are a good measure.
    """
    refused = [batch_problems(session, movement) for movement in movements]
    fitting = [movement for movement, problems in zip(movements, refused, strict=True) if not problems]
    outcomes: Iterator[BatchOutcome] = iter(())
    if fitting:
        answer = await session.scalar(
            _POST_MANY,
            {"tenant": session.info["tenant_id"], "actor": actor, "movements": _encode(fitting).decode()},
        )
        outcomes = iter(_decode_batch(answer))
    return [Refused(problems) if problems else next(outcomes) for problems in refused]


def _settled(outcome: Outcome, *, movement_id: UUID, key: RequestKey | None) -> tuple[PostedMovement, bool]:
    match outcome:
        case Posted(movement):
            return movement, False
        case Replayed(movement):
            return movement, True
        case _:
            raise _named(outcome, movement_id, key)


def _named(  # noqa: PLR0911 - one return for each outcome
    outcome: Short | Refused | CancelledOut | KeyConflict | Unknown | NotReversible | AlreadyReversed,
    movement_id: UUID,
    key: RequestKey | None,
) -> StrataError:
    match outcome:
        case Short(shortages):
            return StockShortageError(shortages)
        case Refused(problems):
            return LinesRefusedError([line_error(problem) for problem in problems])
        case CancelledOut():
            return MovementCancelsOutError()
        case KeyConflict():
            return IdempotencyConflictError(key.key if key else "")
        case Unknown():
            return MovementNotFoundError(movement_id)
        case NotReversible():
            return NotReversibleError(movement_id)
        case AlreadyReversed():
            return AlreadyReversedError(movement_id)
