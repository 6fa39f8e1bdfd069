from __future__ import annotations

from strata.console.api import API
from strata.console.pages import cells, change_tenant_status, tenant, tenants

ROUTES = [*API, tenants, tenant, change_tenant_status, cells]
