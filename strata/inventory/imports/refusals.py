"""A row that was not taken: an expected outcome, hence a value."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from strata.inventory.custom.values import ProblemCode

EXCERPT = 500
"""The most of one field, or of a row that has no fields, that is kept to show."""


class RefusalCode(StrEnum):
    """Strata's own reasons; a mapping's rules add theirs."""

    UNREADABLE = "unreadable"
    BAD_ENCODING = "bad-encoding"
    ROW_TOO_LONG = "row-too-long"
    WRONG_FIELD_COUNT = "wrong-field-count"
    CONTROL_CHARACTER = "control-character"
    SKU_MISSING = "sku-missing"
    SKU_TOO_LONG = "sku-too-long"
    REFERENCE_TOO_LONG = "reference-too-long"
    QUANTITY_INVALID = "quantity-invalid"
    QUANTITY_ZERO = "quantity-zero"
    QUANTITY_SIGN = "quantity-sign"
    TIME_INVALID = "time-invalid"
    NO_RULE = "no-rule"
    SKU_LIMIT = "sku-limit"
    SHORTAGE = "shortage"
    CANCELLED_OUT = "cancelled-out"
    CUSTOM_REQUIRED = "custom-required"
    CUSTOM_MISSING = ProblemCode.MISSING.value
    CUSTOM_UNFIT = ProblemCode.UNFIT.value
    CUSTOM_UNKNOWN = ProblemCode.UNKNOWN.value
    MOVEMENT_REFUSED = "movement-refused"


class Refusal(msgspec.Struct, frozen=True):
    line: int
    """The line of the file at which the row begins, the header being line 1."""
    code: str
    message: str
    """A sentence."""
    source: dict[str, str]
    """The row as it was read, by column; {"text": …} when it could not be split into columns."""


def refusal(line: int, code: str, predicate: str, source: dict[str, str]) -> Refusal:
    """`predicate` ends the sentence that begins with «Line 17»."""
    return Refusal(line, code, f"Line {line} {predicate}.", source)


def excerpt(text: str) -> str:
    """Fit to be stored and shown: undecodable bytes and NUL replaced, cut to EXCERPT."""
    shown = text[:EXCERPT].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return shown.replace("\0", "\N{REPLACEMENT CHARACTER}")
