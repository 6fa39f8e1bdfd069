"""Which tenants would get something else: every tenant's context is evaluated with the flags as they are and as they would be."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from uuid import UUID

import msgspec

from strata.tenancy.context import TenantContext
from strata.tenancy.facets.flag_overrides import FlagOverrides
from strata.tenancy.flags.compiled_set import CompiledSet, dependants
from strata.tenancy.flags.model import Flag, FlagSet, Reason

Contexts = Callable[[], AsyncIterator[TenantContext]]
"""Of every tenant that anybody can be routed to, as the catalog has it now."""


class Changed(msgspec.Struct, frozen=True):
    flag: str
    tenant: str
    before: str
    after: str
    reason_before: Reason
    reason_after: Reason


class FlagEffect(msgspec.Struct, frozen=True):
    flag: str
    tenants: int
    """All there are."""
    changed: int
    before: dict[str, int]
    """Tenants by variant."""
    after: dict[str, int]


class DryRun(msgspec.Struct, frozen=True):
    effects: list[FlagEffect]
    """Of the flag, and of those that need it."""
    changed: list[Changed]
    """Every tenant that would get another variant, by flag and slug."""
    asks_users: bool
    """A rule looks at users, who are not known here: for the tenant as such it does not hold."""


class OverrideWish(msgspec.Struct, frozen=True):
    """A variant for one tenant; None: what the flag gives by itself."""

    flag: str
    tenant_id: UUID
    variant: str | None


async def dry_run(before: FlagSet, after: FlagSet, contexts: Contexts, override: OverrideWish | None = None) -> DryRun:
    affected = sorted(_affected(before, after, override))
    was, will = CompiledSet(before), CompiledSet(after, strict=True)
    counts_before: dict[str, Counter[str]] = {key: Counter() for key in affected}
    counts_after: dict[str, Counter[str]] = {key: Counter() for key in affected}
    changed: list[Changed] = []
    async for context in contexts():
        then = _with(context, override)
        for key in affected:
            old, new = was.evaluate(key, context), will.evaluate(key, then)
            counts_before[key][old.variant] += 1
            counts_after[key][new.variant] += 1
            if old.variant != new.variant:
                changed.append(Changed(key, context.slug, old.variant, new.variant, old.reason, new.reason))
    changed.sort(key=lambda each: (each.flag, each.tenant))
    by_flag = Counter(each.flag for each in changed)
    effects = [
        FlagEffect(
            key,
            counts_before[key].total(),
            by_flag[key],
            dict(sorted(counts_before[key].items())),
            dict(sorted(counts_after[key].items())),
        )
        for key in affected
    ]
    return DryRun(effects, changed, asks_users=any(_asks_users(after, key) for key in affected))


def _affected(before: FlagSet, after: FlagSet, override: OverrideWish | None) -> set[str]:
    flags = {key for key in {*before.flags, *after.flags} if before.flags.get(key) != after.flags.get(key)}
    segments = {
        name for name in {*before.segments, *after.segments} if before.segments.get(name) != after.segments.get(name)
    }
    if override is not None:
        flags.add(override.flag)
    return dependants(before, flags, segments) | dependants(after, flags, segments)


def _with(context: TenantContext, override: OverrideWish | None) -> TenantContext:
    if override is None or context.id != override.tenant_id:
        return context
    variants = {flag: variant for flag, variant in context.flag_overrides.variants.items() if flag != override.flag}
    if override.variant is not None:
        variants[override.flag] = override.variant
    return msgspec.structs.replace(context, flag_overrides=FlagOverrides(variants))


def _asks_users(flags: FlagSet, key: str) -> bool:
    flag = flags.flags.get(key)
    return flag is not None and any(attribute.startswith("user.") for attribute in _attributes(flags, flag))


def _attributes(flags: FlagSet, flag: Flag) -> Iterator[str]:
    for rule in flag.rules:
        for condition in rule.when:
            yield condition.attribute
            for name in condition.values:
                segment = flags.segments.get(str(name)) if not condition.attribute else None
                for group in segment.any_of if segment is not None else ():
                    yield from (each.attribute for each in group)
