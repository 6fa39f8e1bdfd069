"""What stands around the pages of an account."""

from __future__ import annotations

from pathlib import Path

from strata.identity.permissions import Permission
from strata.inventory.pages.surroundings import frame_for
from strata.platform.tokens import Claims
from strata.platform.web.pages import Pages

__all__ = ["PAGES", "frame_for", "tabs_for"]

PAGES = Pages(Path(__file__).with_name("templates"))
_TABS: tuple[tuple[Permission, str, str], ...] = (
    (Permission.SETTINGS_READ, "Settings", "/account/settings"),
    (Permission.PLAN_READ, "Plan", "/account/plan"),
    (Permission.AUDIT_READ, "Audit", "/account/audit"),
    (Permission.ISOLATION_READ, "Data isolation", "/account/isolation"),
    (Permission.USAGE_READ, "Usage", "/account/usage"),
)


def tabs_for(claims: Claims) -> list[tuple[str, str]]:
    """Title and address of the account's pages that this visitor may see."""
    return [(title, url) for permission, title, url in _TABS if permission in claims.permissions]
