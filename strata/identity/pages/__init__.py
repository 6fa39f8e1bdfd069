"""Pages that every host has: signing in and out, the front door, what is said when something is refused."""

from __future__ import annotations

from strata.identity.pages.front_door import branding_style, front_door
from strata.identity.pages.session import sign_in, sign_in_page, sign_out

ROUTES = [front_door, branding_style, sign_in_page, sign_in, sign_out]
