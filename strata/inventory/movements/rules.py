"""What a tenant's own rules say of a movement, wherever it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from strata.inventory.custom.values import Entity, defined, problems
from strata.inventory.movements.models import MovementKind
from strata.inventory.movements.outcomes import LineProblem
from strata.inventory.settings import AboveQuantity, rules_of

if TYPE_CHECKING:
    from strata.inventory.movements.schemas import MovementDocument, MovementIn
    from strata.tenancy.session import TenantReadSession

_UNJUDGED = frozenset({MovementKind.COUNT})
"""A count says what lies there, not how much moves."""


def rule_errors(session: TenantReadSession, movement: MovementIn) -> Iterator[dict[str, str]]:
    """With the path of each; what approval would settle is none."""
    reasons = rules_of(session).adjustment_reasons
    if movement.kind is MovementKind.ADJUST and reasons and movement.reason not in reasons:
        message = f"An adjustment needs one of these reasons: {', '.join(reasons)}."
        yield {"path": "/reason", "code": "bad-reason", "message": message}
    yield from problems(defined(session, Entity.MOVEMENT), movement.custom)


def needs_approval(session: TenantReadSession, movement: MovementIn | MovementDocument) -> str | None:
    """Why it does, in a sentence; None: it does not."""
    limit = rules_of(session).approval_above
    if limit is None or movement.kind in _UNJUDGED:
        return None
    above = next((line for line in movement.lines if abs(line.quantity) > limit), None)
    return None if above is None else f"{abs(above.quantity)} of «{above.sku}» is more than {limit} in one line."


def may_wait(session: TenantReadSession) -> bool:
    return rules_of(session).above is AboveQuantity.APPROVE


def batch_problems(session: TenantReadSession, movement: MovementDocument) -> list[LineProblem]:
    """Of a movement that a program posts in a batch: nobody can be asked there, so what would wait is refused."""
    rules = rules_of(session)
    found = [
        LineProblem(0, "custom", problem["code"], problem["message"])
        for problem in problems(defined(session, Entity.MOVEMENT), movement.custom)
    ]
    if (
        movement.kind is MovementKind.ADJUST
        and rules.adjustment_reasons
        and movement.reason not in rules.adjustment_reasons
    ):
        found.append(LineProblem(0, "reason", "bad-reason", ", ".join(rules.adjustment_reasons)))
    if rules.approval_above is not None and movement.kind not in _UNJUDGED:
        found += [
            LineProblem(number, "quantity", "approval-needed", rules.approval_above)
            for number, line in enumerate(movement.lines)
            if abs(line.quantity) > rules.approval_above
        ]
    return found
