"""The facets that tenancy itself brings; composition adds those of other domains."""

from __future__ import annotations

from typing import Any

from strata.tenancy.facets.base import Facet
from strata.tenancy.facets.branding import BRANDING
from strata.tenancy.facets.entitlements import FEATURES, LIMITS
from strata.tenancy.facets.tenant_settings import TENANT_SETTINGS

FACETS: tuple[Facet[Any, Any], ...] = (FEATURES, LIMITS, TENANT_SETTINGS, BRANDING)
"""Each is named after the field of TenantContext that it fills."""
