"""What stands around the staff's pages: the navigation that this visitor may use."""

from __future__ import annotations

from pathlib import Path

from strata.identity.pages.frame import staff_frame
from strata.identity.permissions import Permission
from strata.platform.tokens import Claims
from strata.platform.web.pages import Destination, Frame, Pages

_DESTINATIONS = (
    (Permission.STAFF_TENANTS_READ, Destination("Tenants", "/tenants", "tenants")),
    (Permission.STAFF_MOVES_READ, Destination("Moves", "/moves", "move")),
    (Permission.STAFF_MOVES_READ, Destination("Waves", "/waves", "waves")),
    (Permission.STAFF_TENANTS_READ, Destination("Usage", "/usage", "usage")),
    (Permission.STAFF_TENANTS_READ, Destination("Neighbours", "/neighbours", "neighbours")),
    (Permission.STAFF_CELLS_READ, Destination("Cells", "/cells", "cells")),
    (Permission.STAFF_FLAGS_READ, Destination("Flags", "/flags", "flags")),
    (Permission.STAFF_AUDIT_READ, Destination("Audit", "/audit", "audit")),
)

PAGES = Pages(Path(__file__).with_name("templates"))


def frame_for(claims: Claims) -> Frame:
    return staff_frame(claims, tuple(shown for permission, shown in _DESTINATIONS if permission in claims.permissions))
