"""What a plan allows, and what was agreed with one tenant besides: features (names) and limits (numbers)."""

from __future__ import annotations

import msgspec

from strata.tenancy.facets.base import Facet
from strata.tenancy.plans import Limits, plan_named


class Features(msgspec.Struct, frozen=True, omit_defaults=True):
    names: frozenset[str] = frozenset()

    def __contains__(self, feature: str) -> bool:
        return feature in self.names


class FeaturesFacet(Facet[Features]):
    def decode(self, document: object, plan: str) -> Features:
        overrides = msgspec.convert(document or {}, dict[str, bool])
        names = {name for name in plan_named(plan).features if overrides.get(name, True)}
        return Features(frozenset(names | {name for name, on in overrides.items() if on}))


class LimitsFacet(Facet[Limits]):
    def decode(self, document: object, plan: str) -> Limits:
        overrides = msgspec.convert(document or {}, dict[str, int | None])
        return msgspec.structs.replace(plan_named(plan).limits, **overrides)


FEATURES = FeaturesFacet("features", Features)
LIMITS = LimitsFacet("limits", Limits)
