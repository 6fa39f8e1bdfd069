from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from strata.inventory.custom.values import ProblemCode
from strata.inventory.movements.outcomes import LineProblem, Shortage
from strata.platform.errors import ConflictError, InvalidInputError, NotFoundError


class StockShortageError(ConflictError):
    code = "stock-shortage"
    title = "Not enough stock"

    def __init__(self, shortages: Sequence[Shortage]) -> None:
        first = shortages[0]
        more = f" and {len(shortages) - 1} more" if len(shortages) > 1 else ""
        super().__init__(
            f"«{first.sku}» in bin «{first.bin}»: {first.wanted} wanted, {first.on_hand} on hand{more}; "
            "take less, or receive or count first.",
            extra={"shortages": [msgspec.structs.asdict(each) for each in shortages]},
        )
        self.shortages = shortages


class LinesRefusedError(InvalidInputError):
    """Lines that name what there is not, or that break a rule; `errors` has each with its path."""

    code = "lines-refused"
    title = "Lines not acceptable"

    def __init__(self, errors: Sequence[dict[str, str]]) -> None:
        more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"{errors[0]['message']}{more}", extra={"errors": list(errors)})


class MovementCancelsOutError(InvalidInputError):
    code = "movement-cancels-out"
    title = "Nothing would change"

    def __init__(self) -> None:
        super().__init__("The lines of this movement cancel each other out, so nothing would change; leave it out.")


class MovementNotFoundError(NotFoundError):
    code = "movement-not-found"
    title = "No such movement"

    def __init__(self, movement_id: UUID) -> None:
        super().__init__(f"There is no movement {movement_id}; list the movements to find it.")


class AlreadyReversedError(ConflictError):
    code = "already-reversed"
    title = "Reversed already"

    def __init__(self, movement_id: UUID) -> None:
        super().__init__(f"Movement {movement_id} has been reversed before, and once is all; look for its reversal.")


class NotReversibleError(ConflictError):
    code = "not-reversible"
    title = "Cannot be reversed"

    def __init__(self, movement_id: UUID) -> None:
        super().__init__(
            f"Movement {movement_id} is itself a reversal or changed nothing; post a new movement instead."
        )


def line_error(problem: LineProblem) -> dict[str, str]:
    return {
        "path": f"/lines/{problem.line}/{problem.field}",
        "code": f"{problem.field.removeprefix('to_')}-{problem.code}" if problem.code in _OF_A_CODE else problem.code,
        "message": _MESSAGES[problem.code].format(value=problem.value, what=_WHAT.get(problem.field, problem.field)),
    }


_OF_A_CODE = frozenset({"unknown", "inactive"})
_WHAT = {"sku": "product", "bin": "bin", "to_bin": "bin"}
_MESSAGES = {
    "unknown": "There is no {what} «{value}»; codes are exact, upper and lower case differ.",
    "inactive": "The {what} «{value}» is inactive; activate it first.",
    "expiry-not-kept": "This product keeps no expiry dates; leave expires_on out, or change its expiry_policy.",
    "expiry-missing": "This product is received with an expiry date only; give expires_on.",
    "expiry-differs": "This batch has another expiry date ({value} was to come); use another batch.",
    ProblemCode.UNKNOWN: "{value}",
    ProblemCode.MISSING: "{value}",
    ProblemCode.UNFIT: "{value}",
    "bad-reason": "An adjustment needs one of these reasons: {value}.",
    "approval-needed": "More than {value} in one line needs approval, which a file cannot wait for; post it by hand.",
    "too-large": "That would make {value} on hand, more than can be kept; check the quantity.",
}
