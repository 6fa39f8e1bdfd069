from __future__ import annotations

from strata.console.api import API
from strata.console.audit import ROUTES as AUDIT
from strata.console.entitlements import ROUTES as ENTITLEMENTS
from strata.console.flags import ROUTES as FLAGS
from strata.console.flags_api import API as FLAGS_API
from strata.console.isolation import ROUTES as ISOLATION
from strata.console.migrations import API as MIGRATIONS
from strata.console.move_pages import ROUTES as MOVE_PAGES
from strata.console.neighbours import ROUTES as NEIGHBOURS
from strata.console.pages import cells, change_tenant_status, tenant, tenants
from strata.console.settings import ROUTES as SETTINGS
from strata.console.usage import ROUTES as USAGE
from strata.console.wave_pages import ROUTES as WAVE_PAGES
from strata.console.waves import API as WAVES

ROUTES = [
    *API,
    *MIGRATIONS,
    *WAVES,
    *ENTITLEMENTS,
    *FLAGS_API,
    *FLAGS,
    *AUDIT,
    *SETTINGS,
    *ISOLATION,
    tenants,
    tenant,
    change_tenant_status,
    cells,
    *MOVE_PAGES,
    *WAVE_PAGES,
    *USAGE,
    *NEIGHBOURS,
]
