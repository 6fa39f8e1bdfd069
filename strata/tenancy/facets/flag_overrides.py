"""Variants of feature flags that staff set for one tenant; they travel in its context, not with the flags."""

from __future__ import annotations

import msgspec
from sqlalchemy import ColumnElement, func, or_, select

from strata.tenancy.catalog.tables import TenantRow
from strata.tenancy.facets.base import Facet
from strata.tenancy.flags.tables import FlagOverrideRow
from strata.tenancy.plans import Plan


class FlagOverrides(msgspec.Struct, frozen=True, omit_defaults=True):
    variants: dict[str, str] = {}
    """By flag."""


class FlagOverridesFacet(Facet[FlagOverrides]):
    def expression(self) -> ColumnElement[object]:
        return (
            select(func.jsonb_object_agg(FlagOverrideRow.flag, FlagOverrideRow.variant))
            .where(
                FlagOverrideRow.tenant_id == TenantRow.id,
                or_(FlagOverrideRow.expires_at.is_(None), FlagOverrideRow.expires_at > func.now()),
            )
            .correlate(TenantRow)
            .scalar_subquery()
        )

    def decode(self, document: object, plan: Plan) -> FlagOverrides:  # noqa: ARG002 - the same on every plan
        return FlagOverrides(msgspec.convert(document or {}, dict[str, str]))


FLAG_OVERRIDES = FlagOverridesFacet("flag_overrides")
