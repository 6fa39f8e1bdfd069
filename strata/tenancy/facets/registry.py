"""The facets that tenancy itself brings; composition adds those of other domains."""

from __future__ import annotations

from typing import Any

from strata.tenancy.facets.base import Facet, PlainFacet
from strata.tenancy.facets.branding import BRANDING
from strata.tenancy.facets.entitlements import FEATURES, LIMITS
from strata.tenancy.facets.flag_overrides import FLAG_OVERRIDES
from strata.tenancy.facets.tenant_settings import TENANT_SETTINGS

DOCUMENTS: tuple[PlainFacet[Any], ...] = (BRANDING,)
"""Those that keep a document that staff can replace."""
FACETS: tuple[Facet[Any], ...] = (FEATURES, LIMITS, FLAG_OVERRIDES, TENANT_SETTINGS, *DOCUMENTS)
"""Each is named after the field of TenantContext that it fills."""
