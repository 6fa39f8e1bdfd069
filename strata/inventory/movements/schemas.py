from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec

from strata.inventory.movements.errors import LinesRefusedError
from strata.inventory.movements.models import MovementKind
from strata.inventory.text_rules import Batch, BinCode, Note, Reason, Reference, Sku

MAX_QUANTITY = 10**12
"""Of one line; the import takes no more either."""
MAX_LINES = 1000
_CLOCKS_DIFFER = timedelta(days=1)
_YEARS = range(1970, 9000)
"""Beyond them a time zone's hours can leave the calendar, and no stock moved then."""

Quantity = Annotated[
    int,
    msgspec.Meta(
        ge=-MAX_QUANTITY,
        le=MAX_QUANTITY,
        description="Whole units. adjust: signed, not 0. count: what was found, 0 or more. Else 1 or more.",
    ),
]


class LineIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    sku: Sku
    bin: BinCode
    quantity: Quantity
    to_bin: BinCode | None = None
    """Where a transfer goes."""
    batch: Batch = ""
    expires_on: date | None = None
    """Of the batch; only when receiving."""


class MovementIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    kind: MovementKind
    lines: Annotated[list[LineIn], msgspec.Meta(min_length=1, max_length=MAX_LINES)]
    reference: Reference | None = None
    """The document behind it: an order, a delivery note."""
    reason: Reason | None = None
    note: Note | None = None
    occurred_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    """Default: now."""
    custom: dict[str, str | int | float] = {}
    """Of the fields that the organisation has defined, by key."""


class ReversalIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    reason: Reason | None = None
    note: Note | None = None


class MovementDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """A movement as the database function takes it. Programs that post in batches make these themselves."""

    id: UUID
    kind: MovementKind
    lines: list[LineIn]
    reference: str | None = None
    reason: str | None = None
    note: str | None = None
    occurred_at: datetime | None = None
    custom: dict[str, str | int | float] = {}


class MovementOut(msgspec.Struct, frozen=True):
    """A movement in a list; its lines come with the movement itself."""

    id: UUID
    kind: str
    reference: str | None
    reason: str | None
    note: str | None
    occurred_at: datetime
    created_at: datetime
    created_by: str
    reverses_id: UUID | None
    custom: dict[str, str | int | float]


class MovementFilter(msgspec.Struct, frozen=True):
    kind: MovementKind | None = None
    reference: str | None = None
    custom: dict[str, str] = {}


def check_lines(movement: MovementIn) -> None:
    """The rules that depend on the kind; LinesRefusedError names every line that breaks one."""
    kind = movement.kind
    if kind is MovementKind.REVERSAL:
        message = "A reversal is posted to /movements/{id}/reversal; choose another kind."
        raise LinesRefusedError([{"path": "/kind", "code": "kind", "message": message}])
    errors: list[dict[str, str]] = []
    if movement.occurred_at is not None and movement.occurred_at.year not in _YEARS:
        message = f"Give a time between the years {_YEARS.start} and {_YEARS.stop - 1}."
        errors.append({"path": "/occurred_at", "code": "bad-occurred-at", "message": message})
    elif movement.occurred_at is not None and movement.occurred_at > datetime.now(UTC) + _CLOCKS_DIFFER:
        message = "That is more than a day in the future; give the time at which it happened."
        errors.append({"path": "/occurred_at", "code": "bad-occurred-at", "message": message})
    for index, line in enumerate(movement.lines):
        for field, message in _line_errors(kind, line):
            errors.append(
                {"path": f"/lines/{index}/{field}", "code": f"bad-{field.replace('_', '-')}", "message": message}
            )
    if errors:
        raise LinesRefusedError(errors)


def _line_errors(kind: MovementKind, line: LineIn) -> Iterator[tuple[str, str]]:
    quantity = line.quantity
    match kind:
        case MovementKind.ADJUST if quantity == 0:
            yield "quantity", "An adjustment adds or takes something; give a quantity other than 0."
        case MovementKind.COUNT if quantity < 0:
            yield "quantity", "A count finds 0 or more; give what lies there."
        case MovementKind.RECEIVE | MovementKind.PICK | MovementKind.TRANSFER if quantity < 1:
            yield "quantity", f"A {kind} moves 1 or more; give a positive quantity."
    if kind is not MovementKind.TRANSFER:
        if line.to_bin is not None:
            yield "to_bin", f"A {kind} has one bin; leave to_bin out."
    elif line.to_bin is None or line.to_bin == line.bin:
        yield "to_bin", "A transfer goes to another bin; give that one as to_bin."
    if line.expires_on is not None and kind is not MovementKind.RECEIVE:
        yield "expires_on", "Expiry dates come with a receipt; leave expires_on out."
