"""TenantContext: what every request asks about its tenant, built by one catalog query and cached."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from strata.tenancy.facets.branding import Branding
from strata.tenancy.facets.entitlements import Features
from strata.tenancy.facets.flag_overrides import FlagOverrides
from strata.tenancy.facets.tenant_settings import TenantSettings
from strata.tenancy.model import Placement, TenantStatus
from strata.tenancy.plans import Limits


class TenantContext(msgspec.Struct, frozen=True, omit_defaults=True):
    """Immutable; a change of the tenant makes a new one with a higher `version`.

    `placement` is for tenancy and the migrator: product code that reads it would know the tier, and a lint refuses it.
    """

    id: UUID
    slug: str
    name: str
    status: TenantStatus
    plan: str
    version: int
    placement: Placement
    plan_version: int = 1
    created_at: datetime | None = None
    status_reason: str | None = None
    parent_id: UUID | None = None
    features: Features = Features()
    flag_overrides: FlagOverrides = FlagOverrides()
    limits: Limits = Limits()
    settings: TenantSettings = TenantSettings()
    branding: Branding = Branding()
