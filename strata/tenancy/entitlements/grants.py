"""What was agreed with one tenant beside its plan, and what plan and agreements come to, each with its source.

A grant is an add-on (so many pieces of it), a feature (given, or withheld whatever the plan says) or a limit (in place of
every other). Nothing here is stored: plan and grants are, and this computes anew from them whenever a context is built.
So a plan change cannot erase a grant, and what is added to a plan or add-on reaches those who have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

from strata.tenancy.plans import Limits, Plan, catalogue


class GrantKind(StrEnum):
    ADD_ON = "add-on"
    FEATURE = "feature"
    LIMIT = "limit"


class Grant(msgspec.Struct, frozen=True):
    kind: GrantKind
    name: str
    amount: int | None = None
    """Of an add-on: how many; of a limit: the limit, None for none."""
    given: bool = True
    """False: a feature that the tenant shall not have."""


class FeatureEntitlement(msgspec.Struct, frozen=True):
    name: str
    held: bool
    sources: tuple[str, ...]
    """«plan business v1», «add-on own-domain», «override»; the last decides."""


class LimitEntitlement(msgspec.Struct, frozen=True):
    name: str
    amount: int | None
    sources: tuple[str, ...]


class Entitled(msgspec.Struct, frozen=True):
    features: tuple[FeatureEntitlement, ...]
    limits: tuple[LimitEntitlement, ...]

    def feature_names(self) -> frozenset[str]:
        return frozenset(each.name for each in self.features if each.held)

    def limit_values(self) -> Limits:
        return Limits(**{each.name: each.amount for each in self.limits})


OVERRIDE = "override"


def entitled(plan: Plan, grants: Sequence[Grant]) -> Entitled:
    """Add-ons come on top of the plan; an override beats both. A grant that this release does not know counts for nothing."""
    return Entitled(tuple(_features(plan, grants)), tuple(_limits(plan, grants)))


def _features(plan: Plan, grants: Sequence[Grant]) -> Iterable[FeatureEntitlement]:
    sources: dict[str, list[str]] = {name: [_of_plan(plan)] for name in plan.features}
    for grant in grants:
        if grant.kind is GrantKind.ADD_ON and (add_on := catalogue().add_ons.get(grant.name)) is not None:
            for name in add_on.features:
                sources.setdefault(name, []).append(_of_add_on(grant))
    held = dict.fromkeys(sources, True)
    for grant in grants:
        if grant.kind is GrantKind.FEATURE:
            sources.setdefault(grant.name, []).append(OVERRIDE)
            held[grant.name] = grant.given
    return (FeatureEntitlement(name, held[name], tuple(sources[name])) for name in sorted(sources))


def _limits(plan: Plan, grants: Sequence[Grant]) -> Iterable[LimitEntitlement]:
    overrides = {grant.name: grant.amount for grant in grants if grant.kind is GrantKind.LIMIT}
    for name in Limits.__struct_fields__:
        amount, sources = getattr(plan.limits, name), [_of_plan(plan)]
        for grant in grants:
            more = _raised(grant, name)
            if more:
                sources.append(_of_add_on(grant))
                amount = None if amount is None else amount + more
        if name in overrides:
            sources.append(OVERRIDE)
            amount = overrides[name]
        yield LimitEntitlement(name, amount, tuple(sources))


def _raised(grant: Grant, limit: str) -> int:
    add_on = catalogue().add_ons.get(grant.name) if grant.kind is GrantKind.ADD_ON else None
    return 0 if add_on is None else add_on.limits.get(limit, 0) * (grant.amount or 1)


def _of_plan(plan: Plan) -> str:
    return f"plan {plan.name} v{plan.version}"


def _of_add_on(grant: Grant) -> str:
    return f"add-on {grant.name}" + (f" x {grant.amount}" if (grant.amount or 1) > 1 else "")
