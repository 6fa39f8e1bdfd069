"""What a change of plan would do to one tenant, told before it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from strata.tenancy.entitlements.grants import Entitled, Grant, GrantKind, entitled
from strata.tenancy.model import Tier
from strata.tenancy.plans import Plan


class LimitChange(msgspec.Struct, frozen=True):
    name: str
    before: int | None
    """None: no limit."""
    after: int | None
    used: int | None
    """None: nobody counts it yet, or its cell did not answer."""

    @property
    def rises(self) -> bool:
        return self.after is None or (self.before is not None and self.after > self.before)

    @property
    def is_over(self) -> bool:
        return self.used is not None and self.after is not None and self.used > self.after


class Over(msgspec.Struct, frozen=True):
    """More in use than the new plan allows: nothing is taken away, nothing more can be made."""

    name: str
    used: int
    limit: int


class RetentionChange(msgspec.Struct, frozen=True):
    name: str
    before: int | None
    after: int | None


class PlanChange(msgspec.Struct, frozen=True):
    slug: str
    before: str
    """«business v1»."""
    after: str
    features_gained: tuple[str, ...]
    features_lost: tuple[str, ...]
    limits: tuple[LimitChange, ...]
    """Those that differ."""
    over: tuple[Over, ...]
    retention: tuple[RetentionChange, ...]
    tier: Tier | None
    tier_offered: bool
    """False: the new plan is not sold with where the tenant lives; it stays there until staff move it."""
    kept: tuple[str, ...]
    """Add-ons and overrides, which a plan change leaves as they are."""
    uncounted: str | None = None
    """Why nothing could be counted."""

    @property
    def changes_nothing(self) -> bool:
        return not (
            self.features_gained or self.features_lost or self.limits or self.retention or self.before != self.after
        )


def plan_change(
    slug: str,
    before: Plan,
    after: Plan,
    grants: Sequence[Grant],
    *,
    tier: Tier | None,
    used: Mapping[str, int],
    uncounted: str | None = None,
) -> PlanChange:
    old, new = entitled(before, grants), entitled(after, grants)
    limits = list(_limits(old, new, used))
    return PlanChange(
        slug=slug,
        before=f"{before.name} v{before.version}",
        after=f"{after.name} v{after.version}",
        features_gained=tuple(sorted(new.feature_names() - old.feature_names())),
        features_lost=tuple(sorted(old.feature_names() - new.feature_names())),
        limits=tuple(each for each in limits if each.before != each.after),
        over=tuple(Over(each.name, each.used or 0, each.after or 0) for each in limits if each.is_over),
        retention=tuple(_retention(before, after)),
        tier=tier,
        tier_offered=tier is None or tier in after.tiers,
        kept=tuple(_said(grant) for grant in grants),
        uncounted=uncounted,
    )


def _limits(old: Entitled, new: Entitled, used: Mapping[str, int]) -> list[LimitChange]:
    return [
        LimitChange(was.name, was.amount, will.amount, used.get(was.name))
        for was, will in zip(old.limits, new.limits, strict=True)
    ]


def _retention(before: Plan, after: Plan) -> list[RetentionChange]:
    return [
        RetentionChange(name, was, will)
        for name in before.retention.__struct_fields__
        if (was := getattr(before.retention, name)) != (will := getattr(after.retention, name))
    ]


def _said(grant: Grant) -> str:
    match grant.kind:
        case GrantKind.ADD_ON:
            return f"add-on {grant.name} x {grant.amount or 1}"
        case GrantKind.FEATURE:
            return f"{'feature' if grant.given else 'without feature'} {grant.name}"
        case GrantKind.LIMIT:
            return f"limit {grant.name} = {'none' if grant.amount is None else grant.amount}"
