"""Features (names) and limits (numbers): what plan, add-ons and overrides come to (tenancy/entitlements)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import ColumnElement, func, or_, select

from strata.tenancy.catalog.tables import EntitlementRow, TenantRow
from strata.tenancy.entitlements.grants import Grant, GrantKind, entitled
from strata.tenancy.facets.base import Facet
from strata.tenancy.plans import Limits, Plan


class Features(msgspec.Struct, frozen=True, omit_defaults=True):
    names: frozenset[str] = frozenset()

    def __contains__(self, feature: str) -> bool:
        return feature in self.names


def _grants(*kinds: GrantKind) -> ColumnElement[object]:
    grant = func.jsonb_build_object(
        "kind",
        EntitlementRow.kind,
        "name",
        EntitlementRow.name,
        "amount",
        EntitlementRow.amount,
        "given",
        EntitlementRow.given,
    )
    return (
        select(func.jsonb_agg(grant))
        .where(
            EntitlementRow.tenant_id == TenantRow.id,
            EntitlementRow.kind.in_(kinds),
            EntitlementRow.ended_at.is_(None),
            or_(EntitlementRow.expires_at.is_(None), EntitlementRow.expires_at > func.now()),
        )
        .correlate(TenantRow)
        .scalar_subquery()
    )


def _read(document: object) -> Sequence[Grant]:
    return msgspec.convert(document or [], list[Grant])


class FeaturesFacet(Facet[Features]):
    def expression(self) -> ColumnElement[object]:
        return _grants(GrantKind.FEATURE, GrantKind.ADD_ON)

    def decode(self, document: object, plan: Plan) -> Features:
        return Features(entitled(plan, _read(document)).feature_names())


class LimitsFacet(Facet[Limits]):
    def expression(self) -> ColumnElement[object]:
        return _grants(GrantKind.LIMIT, GrantKind.ADD_ON)

    def decode(self, document: object, plan: Plan) -> Limits:
        return entitled(plan, _read(document)).limit_values()


FEATURES = FeaturesFacet("features")
LIMITS = LimitsFacet("limits")
