"""New flags, and small changes of flags, as staff say them: without writing a document."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from strata.tenancy.flags.conditions import invalid
from strata.tenancy.flags.model import EVERYBODY, HASH_VERSION, Condition, Flag, Operator, Rule, Segment

T = TypeVar("T", Flag, Segment)

CANARY_RULE = "canary"


def flag_from(key: str, document: object, before: Flag | None) -> Flag:
    """A flag from what staff wrote. Seeds and hash version that are left out stay as they are; a new flag gets new ones.

    Raises InvalidInputError with the path of what is wrong.
    """
    if not isinstance(document, dict):
        raise invalid("", "A flag is a JSON object.")
    members: dict[str, Any] = {**_draw(before), **document}
    if members.setdefault("key", key) != key:
        raise invalid("/key", f"This is the flag «{key}»: a flag does not change its key.")
    return _converted(members, Flag)


def segment_from(name: str, document: object, tenants: Sequence[UUID] = ()) -> Segment:
    """A segment from what staff wrote, with these tenants too."""
    if not isinstance(document, dict):
        raise invalid("", "A segment is a JSON object.")
    segment = _converted({"name": name, **document}, Segment)
    if segment.name != name:
        raise invalid("/name", f"This is the segment «{name}»: a segment does not change its name.")
    return msgspec.structs.replace(segment, tenants=list(dict.fromkeys([*segment.tenants, *tenants])))


def share_of(percent: str) -> int:
    """«12.5» as hundredths of a percent."""
    try:
        hundredths = Decimal(percent.strip().removesuffix("%").strip()) * 100
    except InvalidOperation:
        hundredths = Decimal(-1)
    if not 0 <= hundredths <= EVERYBODY or hundredths != hundredths.to_integral_value():
        raise invalid("/rollout", f"«{percent}» is no share: give 0 to 100 percent, with two decimals at most.")
    return int(hundredths)


def with_canary(flag: Flag, segment: str) -> Flag:
    """The tenants of the segment get it first, whatever the other rules and the share say."""
    rule = Rule(CANARY_RULE, [Condition(Operator.IN_SEGMENT, [segment])], serve=flag.on)
    others = [each for each in flag.rules if each.name != CANARY_RULE]
    return msgspec.structs.replace(flag, rules=[rule, *others])


def _converted(members: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(members, kind)
    except msgspec.ValidationError as error:
        # msgspec says where at the end: «Expected `str`, got `int` - at `$.rules[0].name`».
        what, _, where = str(error).partition(" - at `$")
        path = where.rstrip("`").replace("[", "/").replace("]", "").replace(".", "/")
        raise invalid(path, f"{path or 'The document'}: {what}.") from None


def _draw(before: Flag | None) -> dict[str, Any]:
    """What decides who is within a share: no change of a flag shall draw anew by itself."""
    if before is not None:
        return {"seed": before.seed, "variant_seed": before.variant_seed, "hash_version": before.hash_version}
    return {"seed": secrets.token_hex(8), "variant_seed": secrets.token_hex(8), "hash_version": HASH_VERSION}
