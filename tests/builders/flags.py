"""Flags, and tenants to ask them for, without servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid5

import msgspec

from strata.tenancy.context import TenantContext
from strata.tenancy.facets.entitlements import Features
from strata.tenancy.facets.flag_overrides import FlagOverrides
from strata.tenancy.flags.compiled_set import CompiledSet
from strata.tenancy.flags.compiling import Now
from strata.tenancy.flags.model import Flag, FlagSet, Segment
from strata.tenancy.model import Placement, TenantStatus, Tier

_NAMES = UUID("0197a4c0-0000-7000-8000-000000000000")


def flag(key: str = "new-labels", **members: Any) -> Flag:  # noqa: ANN401 - any member of a flag's document
    """As from a document: the same checks."""
    return msgspec.convert({"key": key, "seed": "s1", "variant_seed": "v1", **members}, Flag)


def segment(name: str, **members: Any) -> Segment:  # noqa: ANN401
    return msgspec.convert({"name": name, **members}, Segment)


def compiled(
    *flags: Flag, segments: tuple[Segment, ...] = (), strict: bool = True, now: Now | None = None
) -> CompiledSet:
    found = FlagSet(1, {each.key: each for each in flags}, {each.name: each for each in segments})
    return CompiledSet(found, strict=strict, now=now)


def tenant(
    number: int = 0,
    *,
    plan: str = "starter",
    overrides: Mapping[str, str] | None = None,
    **members: Any,  # noqa: ANN401
) -> TenantContext:
    """The same one for the same number, in every run."""
    return msgspec.structs.replace(
        TenantContext(
            id=uuid5(_NAMES, str(number)),
            slug=f"tenant-{number}",
            name=f"Tenant {number}",
            status=TenantStatus.ACTIVE,
            plan=plan,
            version=1,
            placement=Placement("cell-1", Tier.SHARED, "shared", 1),
            flag_overrides=FlagOverrides(dict(overrides or {})),
            features=Features(frozenset({"import"})),
        ),
        **members,
    )
