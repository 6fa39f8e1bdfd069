"""What a plan allows, and what was agreed with one tenant besides: features (names) and limits (numbers)."""

from __future__ import annotations

import msgspec

from strata.tenancy.facets.base import Facet
from strata.tenancy.plans import Limits, plan_named


class Features(msgspec.Struct, frozen=True, omit_defaults=True):
    names: frozenset[str] = frozenset()

    def __contains__(self, feature: str) -> bool:
        return feature in self.names


class FeatureAgreement(msgspec.Struct, frozen=True):
    """Features that one tenant has, or lacks, whatever its plan says."""

    on: frozenset[str] = frozenset()
    off: frozenset[str] = frozenset()


class FeaturesFacet(Facet[FeatureAgreement, Features]):
    def decode(self, document: object, plan: str) -> Features:
        agreed = msgspec.convert(document or {}, FeatureAgreement)
        return Features((plan_named(plan).features | agreed.on) - agreed.off)


class LimitsFacet(Facet[Limits, Limits]):
    def decode(self, document: object, plan: str) -> Limits:
        agreed = msgspec.convert(document or {}, dict[str, int | None])
        return msgspec.structs.replace(plan_named(plan).limits, **agreed)


FEATURES = FeaturesFacet("features", FeatureAgreement)
LIMITS = LimitsFacet("limits", Limits)
