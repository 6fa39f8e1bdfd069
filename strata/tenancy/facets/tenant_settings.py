"""Preferences of a tenant, with defaults on read so that a new one needs no data migration."""

from __future__ import annotations

import msgspec

from strata.tenancy.facets.base import PlainFacet


class TenantSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    time_zone: str = "UTC"
    locale: str = "en"
    currency: str = "USD"


TENANT_SETTINGS = PlainFacet("settings", TenantSettings)
