"""What the database functions of the write path answer (strata/migrations/tenant/sql/0001_post_movement*.sql)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec


class PostedLine(msgspec.Struct, frozen=True):
    sku: str
    bin: str
    batch: str
    quantity: int
    """Signed: what the movement added here."""
    on_hand: int
    """After it."""
    sequence: int
    """Of this balance, without gaps."""


class PostedMovement(msgspec.Struct, frozen=True):
    id: UUID
    kind: str
    reference: str | None
    reason: str | None
    note: str | None
    occurred_at: datetime
    created_at: datetime
    created_by: str
    reverses_id: UUID | None
    lines: list[PostedLine]
    custom: dict[str, str | int | float] = {}


class Shortage(msgspec.Struct, frozen=True):
    sku: str
    bin: str
    wanted: int
    on_hand: int
    batch: str = ""


class LineProblem(msgspec.Struct, frozen=True):
    line: int
    """Counted from 0."""
    field: str
    code: str
    value: str | int | None


class _Outcome(msgspec.Struct, frozen=True, tag_field="outcome"):
    pass


class Posted(_Outcome, frozen=True, tag="posted"):
    movement: PostedMovement


class Replayed(_Outcome, frozen=True, tag="replayed"):
    movement: PostedMovement


class Accepted(_Outcome, frozen=True, tag="posted"):
    """Posted, in a batch, which is told no more."""


class Short(_Outcome, frozen=True, tag="shortage"):
    shortages: list[Shortage]


class Refused(_Outcome, frozen=True, tag="refused"):
    problems: list[LineProblem]


class CancelledOut(_Outcome, frozen=True, tag="cancelled-out"):
    pass


class KeyConflict(_Outcome, frozen=True, tag="key-conflict"):
    pass


class Unknown(_Outcome, frozen=True, tag="unknown"):
    pass


class NotReversible(_Outcome, frozen=True, tag="not-reversible"):
    pass


class AlreadyReversed(_Outcome, frozen=True, tag="already-reversed"):
    pass


BatchOutcome = Accepted | Short | Refused | CancelledOut
Outcome = Posted | Replayed | Short | Refused | CancelledOut | KeyConflict | Unknown | NotReversible | AlreadyReversed
