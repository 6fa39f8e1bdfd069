"""What stands around the product's pages: the navigation that this visitor may use."""

from __future__ import annotations

from pathlib import Path

from strata.identity.pages.frame import tenant_frame
from strata.identity.permissions import Permission
from strata.platform.tokens import Claims
from strata.platform.web.pages import Destination, Frame, Pages
from strata.tenancy.context import TenantContext
from strata.tenancy.model import TenantStatus

_STOCK = Destination("Stock", "/stock", "stock")
_MOVE = Destination("Move stock", "/movements/new", "move")
_IMPORTS = Destination("Imports", "/imports", "import")
_ACCOUNT = Destination("Account", "/account", "account")

PAGES = Pages(Path(__file__).parent.with_name("templates"))


def frame_for(context: TenantContext, claims: Claims) -> Frame:
    destinations = [_STOCK] if Permission.STOCK_READ in claims.permissions else []
    if Permission.MOVEMENTS_WRITE in claims.permissions:
        destinations.append(_MOVE)
    if Permission.IMPORTS_READ in claims.permissions:
        destinations.append(_IMPORTS)
    if Permission.SETTINGS_READ in claims.permissions:
        destinations.append(_ACCOUNT)
    return tenant_frame(context, claims, tuple(destinations))


def why_read_only(context: TenantContext) -> str | None:
    """The reason to show, or None: changes are accepted."""
    if context.status is not TenantStatus.READ_ONLY:
        return None
    return context.status_reason or "no reason was recorded"
