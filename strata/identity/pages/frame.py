"""What stands around a page: the tenant's brand on its own host, the staff's on the console's."""

from __future__ import annotations

from functools import lru_cache

from strata.platform.tokens import Claims
from strata.platform.web.formats import formats
from strata.platform.web.look import Look, look_of
from strata.platform.web.pages import Destination, Frame
from strata.tenancy.context import TenantContext
from strata.tenancy.facets.branding import Branding
from strata.tenancy.facets.tenant_settings import TenantSettings

BRANDING_STYLE = "/branding.css"

_STAFF = Branding(product_name="Strata console", primary_color="#24303d", secondary_color="#e7ebf0", theme="auto")
_NOBODY = Branding()


@lru_cache(maxsize=1024)
def _look(brand: Branding) -> Look:
    return look_of(brand)


def tenant_frame(
    context: TenantContext | None, claims: Claims | None = None, destinations: tuple[Destination, ...] = ()
) -> Frame:
    """`context` None: nobody's address, such as the base domain or a name that no tenant has."""
    brand = _NOBODY if context is None else context.branding
    settings = TenantSettings() if context is None else context.settings
    style = f"{BRANDING_STYLE}?v={context.version}" if context is not None and brand.custom_css else None
    return Frame(
        look=_look(brand),
        formats=formats(settings.time_zone, settings.locale),
        destinations=destinations,
        account=None if context is None or claims is None else context.name,
        user=None if claims is None else claims.sub,
        custom_style_url=style,
    )


def staff_frame(claims: Claims | None = None, destinations: tuple[Destination, ...] = ()) -> Frame:
    return Frame(
        look=_look(_STAFF),
        formats=formats("UTC", "en"),
        destinations=destinations,
        user=None if claims is None else claims.sub,
    )
