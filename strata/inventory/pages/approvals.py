"""Movements that wait for approval: seeing them, approving and rejecting them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.response import Redirect

from strata.identity.permissions import Permission, requires
from strata.inventory.approvals import requests
from strata.inventory.pages.surroundings import PAGES, frame_for, why_read_only
from strata.inventory.request_parameters import CursorParameter
from strata.platform.errors import ConflictError, ForbiddenError, InvalidInputError, StrataError
from strata.platform.paging import Paging
from strata.platform.tokens import Claims
from strata.platform.web.pages import wants_part
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants

ADDRESS = "/movements/requests"
_LONGEST_NOTE = 2000

AnyRequest = Request[Any, Any, Any]


@get(ADDRESS, opt=requires(Permission.MOVEMENTS_READ), include_in_schema=False)
async def movement_requests(
    request: AnyRequest,
    context: TenantContext,
    tenants: Tenants,
    claims: Claims,
    cursor: CursorParameter = None,
    asked: UUID | None = None,
) -> Response[str]:
    """`asked`: what this visitor has just asked for."""
    return await _page(request, context, tenants, claims, cursor=cursor, asked=asked)


@post(
    f"{ADDRESS}/{{request_id:uuid}}",
    opt=requires(Permission.MOVEMENTS_APPROVE),
    include_in_schema=False,
    status_code=303,
)
async def decide_by_form(
    request: AnyRequest, context: TenantContext, tenants: Tenants, claims: Claims, request_id: UUID
) -> Response[Any]:
    form = await request.form()
    try:
        async with tenants.transaction(context) as session:
            if form.get("action") == "approve":
                await requests.approve(session, request_id, actor=claims.sub)
            else:
                note = str(form.get("note", "")).strip().replace("\0", "")[:_LONGEST_NOTE]
                await requests.reject(session, request_id, note or None, actor=claims.sub)
    except (ConflictError, ForbiddenError, InvalidInputError) as error:
        return await _page(request, context, tenants, claims, error=error)
    return Redirect(ADDRESS, status_code=303)


async def _page(
    request: AnyRequest,
    context: TenantContext,
    tenants: Tenants,
    claims: Claims,
    *,
    cursor: str | None = None,
    asked: UUID | None = None,
    error: StrataError | None = None,
) -> Response[str]:
    async with tenants.reading(context) as session:
        page = await requests.list_requests(session, Paging(cursor=cursor or None), None)
    may_decide = Permission.MOVEMENTS_APPROVE in claims.permissions and not why_read_only(context)
    return PAGES.page(
        "inventory/request_rows.html" if wants_part(request) and error is None else "inventory/requests.html",
        request,
        frame_for(context, claims),
        error.status if error else 200,
        page=page,
        asked=asked,
        problem=error.detail if error else None,
        may_decide=may_decide,
        me=claims.sub,
        read_only=why_read_only(context),
    )
