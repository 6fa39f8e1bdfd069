"""Conflicts of posting movements, as the API's description shows them."""

from __future__ import annotations

from uuid import UUID

import msgspec
from litestar.openapi.spec import Example

from strata.inventory.idempotency import IdempotencyConflictError
from strata.inventory.movements.errors import StockShortageError
from strata.inventory.movements.outcomes import Shortage
from strata.inventory.request_parameters import API_PREFIX
from strata.platform.errors import StrataError
from strata.platform.http.problem_description import Examples
from strata.platform.http.problems import problem_of


def _example(summary: str, error: StrataError) -> Example:
    return Example(summary=summary, value=msgspec.json.decode(problem_of(error).document(UUID(int=0).hex)))


_POST = [
    _example("Not enough stock", StockShortageError([Shortage("MUG-RED-350", "HAM-A-01-1", wanted=48, on_hand=12)])),
    _example("Idempotency-Key used before", IdempotencyConflictError("example")),
]
PROBLEM_EXAMPLES: Examples = {("post", f"{API_PREFIX}/movements", 409): _POST}
