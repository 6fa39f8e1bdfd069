"""What a flag is: who gets which variant, in words that staff write and a process compiles.

Shares are in hundredths of a percent: 10,000 is everybody. A flag's document is kept as JSON in the catalog.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import msgspec

EVERYBODY = 10_000
HASH_VERSION = 1

Key = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Share = Annotated[int, msgspec.Meta(ge=0, le=EVERYBODY)]
Value = str | int | float | bool
Seed = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=2000)]


class Reason(StrEnum):
    """Why somebody got a variant, in the order in which a flag is gone through."""

    UNKNOWN = "unknown"
    """There is no such flag: off."""
    KILLED = "killed"
    OVERRIDE = "override"
    """Set for this tenant by hand."""
    NOT_YET = "not-yet"
    ENDED = "ended"
    PLAN = "plan"
    """The tenant's plan ranks below the flag's."""
    PREREQUISITE = "prerequisite"
    RULE = "rule"
    ROLLOUT = "rollout"
    DEFAULT = "default"


class Operator(StrEnum):
    EQUALS = "equals"
    IN = "in"
    CONTAINS = "contains"
    STARTS_WITH = "starts-with"
    ENDS_WITH = "ends-with"
    LESS_THAN = "less-than"
    AT_MOST = "at-most"
    GREATER_THAN = "greater-than"
    AT_LEAST = "at-least"
    BEFORE = "before"
    AFTER = "after"
    VERSION_EQUALS = "version-equals"
    VERSION_BELOW = "version-below"
    VERSION_AT_LEAST = "version-at-least"
    IN_SEGMENT = "in-segment"


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Holds when the attribute stands so to any of the values. One that is missing, or of another type, never holds."""

    operator: Operator
    values: Annotated[list[Value], msgspec.Meta(min_length=1, max_length=10_000)]
    attribute: str = ""
    """`tenant.…`, `user.…` or `strata.version`; none for in-segment."""
    negate: bool = False


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    when: Annotated[list[Condition], msgspec.Meta(min_length=1, max_length=50)]
    """All of them."""
    serve: str | None = None
    """A variant; None: as `split` says."""
    split: dict[str, Share] | None = None
    rollout: Share = EVERYBODY
    """Of those for whom the conditions hold; the others go on to the next rule."""


class Prerequisite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    flag: Key
    variants: Annotated[list[str], msgspec.Meta(min_length=1)]
    """The other flag must give one of these, else this one is off."""


def _first_hash_version() -> int:
    """Of documents without one. A factory, because msgspec leaves out what is equal to a plain default."""
    return 1


class Flag(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    key: Key
    seed: Seed
    """Mixed into who is within a share. Another seed is another draw."""
    variant_seed: Seed
    """The same for who gets which variant: independent of who is within the share."""
    description: Text = ""
    hash_version: int = msgspec.field(default_factory=_first_hash_version)
    """Of who is within a share (tenancy/flags/hashing.py); always written, so that a later one changes nobody's flags."""
    killed: bool = False
    variants: dict[str, Any] = msgspec.field(default_factory=lambda: {"on": True, "off": False})
    """By name, each with its payload: any JSON."""
    off: str = "off"
    """The variant of those whom the flag is not for."""
    on: str = "on"
    """The variant of those within `rollout`, unless there is a `split`."""
    split: dict[str, Share] | None = None
    """Shares of variants among those within `rollout`; they come to 10,000."""
    default: str = "off"
    """The variant of all the rest."""
    rollout: Share = 0
    plan_minimum: str | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    prerequisites: list[Prerequisite] = []
    rules: Annotated[list[Rule], msgspec.Meta(max_length=100)] = []


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Tenants by name, and by what they are like; a flag's rules refer to it."""

    name: Key
    description: Text = ""
    tenants: list[UUID] = []
    excluded: list[UUID] = []
    """Not in it, whatever else is said."""
    any_of: list[list[Condition]] = []
    """Groups of conditions; all of one group must hold."""


class FlagSet(msgspec.Struct, frozen=True):
    """All flags and segments at one moment. `version` rises with every change of any of them."""

    version: int
    flags: dict[str, Flag]
    segments: dict[str, Segment]
