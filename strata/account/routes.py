from __future__ import annotations

from typing import Any

from litestar import get
from litestar.response import Redirect

from strata.account import audit, isolation, plan, settings, usage
from strata.account.surroundings import tabs_for
from strata.identity.permissions import Permission, requires
from strata.platform.tokens import Claims


@get("/account", opt=requires(Permission.SETTINGS_READ), include_in_schema=False, status_code=303)
async def account(claims: Claims) -> Redirect:
    return Redirect(tabs_for(claims)[0][1], status_code=303)


ROUTES: list[Any] = [
    account,
    *settings.ROUTES,
    *plan.ROUTES,
    *audit.ROUTES,
    *isolation.ROUTES,
    *usage.ROUTES,
]
