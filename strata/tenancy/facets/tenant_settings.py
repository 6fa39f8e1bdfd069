"""What product code needs of a tenant's settings: the regional ones, and the sections that domains want in the context."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, select

from strata.tenancy.catalog.tables import TenantRow
from strata.tenancy.facets.base import Facet
from strata.tenancy.plans import Plan
from strata.tenancy.settings.tables import TenantSettingsRow

NOT_IN_CONTEXT = frozenset({"regional", "notifications", "contract"})


class TenantSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    time_zone: str = "UTC"
    locale: str = "en"
    currency: str = "USD"
    sections: dict[str, str] = {}
    """JSON of each further section that was set, by name; its domain reads it, and knows its defaults."""


class SettingsFacet(Facet[TenantSettings]):
    def expression(self) -> ColumnElement[object]:
        return (
            select(TenantSettingsRow.document)
            .where(TenantSettingsRow.tenant_id == TenantRow.id)
            .correlate(TenantRow)
            .scalar_subquery()
        )

    def decode(self, document: object, plan: Plan) -> TenantSettings:  # noqa: ARG002 - the same on every plan
        kept = msgspec.convert(document or {}, dict[str, dict[str, Any]])
        sections = {
            name: msgspec.json.encode(value).decode() for name, value in kept.items() if name not in NOT_IN_CONTEXT
        }
        return msgspec.convert({**kept.get("regional", {}), "sections": sections}, TenantSettings)


TENANT_SETTINGS = SettingsFacet("settings")
