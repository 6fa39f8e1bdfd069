"""The bare address of a host, and what a brand adds to every page of it."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from litestar.response import Redirect

from strata.identity.pages.frame import BRANDING_STYLE, tenant_frame
from strata.identity.pages.rendering import PAGES
from strata.identity.permissions import public
from strata.platform.errors import InvalidInputError, NotFoundError
from strata.platform.settings import HttpSettings
from strata.routing.host import HostKind, ResolvedHost
from strata.tenancy.context import TenantContext
from strata.tenancy.model import validate_slug

_STARTS = {HostKind.TENANT: "/stock", HostKind.CUSTOM: "/stock", HostKind.CONSOLE: "/tenants"}
_KEPT = "private, max-age=31536000, immutable"


@get("/", opt=public(), include_in_schema=False)
async def front_door(request: Request[Any, Any, Any], http_settings: HttpSettings) -> Response[Any]:
    host: ResolvedHost = request.scope["state"]["host"]
    if host.kind in _STARTS:
        return Redirect(_STARTS[host.kind], status_code=303, headers={"Cache-Control": "no-store"})
    if host.kind is not HostKind.BASE:
        message = "There is nothing at this address; check it."
        raise NotFoundError(message)
    name = request.query_params.get("organisation", "").strip().lower()
    address, problem = None, None
    if name:
        try:
            # With the visitor's own port, whatever stands between here and there. A link rather than a redirect: whether
            # there is such an organisation is not told here, and the policy keeps forms on their own host.
            address = f"{http_settings.public_scheme}://{validate_slug(name)}.{request.headers['host']}/"
        except InvalidInputError:
            problem = "No organisation can have that name. It is the first word of the address you were given."
    frame = tenant_frame(None)
    return PAGES.page(
        "identity/find_organisation.html", request, frame, name=name[:60], address=address, problem=problem
    )


@get(BRANDING_STYLE, opt=public(), include_in_schema=False)
async def branding_style(context: TenantContext) -> Response[str]:
    """The tenant's own style sheet: a file, so that it can close no tag; the pages' policy keeps it from calling anybody."""
    return Response(context.branding.custom_css, media_type="text/css", headers={"Cache-Control": _KEPT})
