"""A tenant's isolation statement for staff."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get

from strata.console.surroundings import PAGES, frame_for
from strata.identity.permissions import Permission, requires
from strata.platform.tokens import Claims
from strata.tenancy.attestation.statement import Attestation, SignedStatement
from strata.tenancy.catalog.tenants import TenantDirectory

_OPT = requires(Permission.STAFF_TENANTS_READ)


@get("/staff/v1/tenants/{slug:str}/isolation", opt=_OPT, include_in_schema=False)
async def isolation(slug: str, directory: TenantDirectory, attestation: Attestation) -> SignedStatement:
    return await attestation.attest((await directory.get(slug)).id)


@get("/tenants/{slug:str}/isolation", opt=_OPT, include_in_schema=False)
async def isolation_page(
    request: Request[Any, Any, Any], slug: str, directory: TenantDirectory, attestation: Attestation, claims: Claims
) -> Response[str]:
    made = await attestation.attest((await directory.get(slug)).id)
    return PAGES.page("console/isolation.html", request, frame_for(claims), made=made, statement=made.statement)


ROUTES: list[Any] = [isolation, isolation_page]
