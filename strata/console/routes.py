from __future__ import annotations

from strata.console.api import API
from strata.console.audit import ROUTES as AUDIT
from strata.console.entitlements import ROUTES as ENTITLEMENTS
from strata.console.migrations import API as MIGRATIONS
from strata.console.pages import cells, change_tenant_status, tenant, tenants

ROUTES = [*API, *MIGRATIONS, *ENTITLEMENTS, *AUDIT, tenants, tenant, change_tenant_status, cells]
