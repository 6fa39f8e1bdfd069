"""How a tenant looks to its users. A tenant without branding gets the platform's neutral default."""

from __future__ import annotations

import msgspec

from strata.tenancy.facets.base import PlainFacet


class Branding(msgspec.Struct, frozen=True, omit_defaults=True):
    product_name: str = "Inventory"
    logo_url: str | None = None
    favicon_url: str | None = None
    primary_color: str = "#1f5f8b"
    secondary_color: str = "#e8eef3"
    font_family: str = "system-ui, sans-serif"
    theme: str = "light"
    custom_css: str = ""
    sender_name: str | None = None
    sender_address: str | None = None
    support_url: str | None = None
    terms_url: str | None = None
    privacy_url: str | None = None


BRANDING = PlainFacet("branding", Branding)
