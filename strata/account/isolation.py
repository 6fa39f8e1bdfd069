"""The isolation statement for the tenant's own administrators: API, and a page that prints well."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, Router, get

from strata.account.surroundings import PAGES, frame_for, tabs_for
from strata.identity.permissions import Permission, requires
from strata.inventory.request_parameters import API_PREFIX
from strata.platform.http.query import refuse_unknown_parameters
from strata.platform.tokens import Claims
from strata.tenancy.attestation.statement import Attestation, SignedStatement
from strata.tenancy.context import TenantContext


@get(
    "/isolation",
    summary="How this organisation's data is kept apart, checked now",
    tags=["Isolation"],
    opt=requires(Permission.ISOLATION_READ),
)
async def isolation(context: TenantContext, attestation: Attestation) -> Response[SignedStatement]:
    """The live database is inspected and tried; `passed` says whether everything held. 503 when it cannot be looked at."""
    return Response(await attestation.attest(context.id), headers={"Cache-Control": "no-store"})


@get("/account/isolation", opt=requires(Permission.ISOLATION_READ), include_in_schema=False)
async def isolation_page(
    request: Request[Any, Any, Any], context: TenantContext, attestation: Attestation, claims: Claims
) -> Response[str]:
    made = await attestation.attest(context.id)
    return PAGES.page(
        "account/isolation.html",
        request,
        frame_for(context, claims),
        tabs=tabs_for(claims),
        made=made,
        statement=made.statement,
    )


ROUTES: list[Any] = [
    Router(API_PREFIX, route_handlers=[isolation], before_request=refuse_unknown_parameters),
    isolation_page,
]
