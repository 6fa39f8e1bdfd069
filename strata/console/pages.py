"""The staff's pages: tenants, one tenant with its history, cells and servers."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, post
from litestar.response import Redirect
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.console.surroundings import PAGES, frame_for
from strata.console.tenants import StatusChange, TenantFilter, change_status, tenants_page
from strata.identity.permissions import Permission, requires
from strata.platform.errors import InvalidInputError
from strata.platform.paging import Page, Paging
from strata.platform.tokens import Claims
from strata.platform.web.pages import wants_part
from strata.tenancy.audit.entries import EntryFilter
from strata.tenancy.catalog.audit_chain import list_entries
from strata.tenancy.catalog.registry import Registry
from strata.tenancy.catalog.tenants import TenantDirectory, TenantSummary
from strata.tenancy.model import TenantStatus
from strata.tenancy.settings.book import SettingsBook
from strata.tenancy.settings.conditions import setting_condition

_PER_PAGE = 50
_HISTORY_PER_PAGE = 25
_CHANGEABLE = (TenantStatus.ACTIVE, TenantStatus.READ_ONLY, TenantStatus.SUSPENDED)

AnyRequest = Request[Any, Any, Any]


@get("/tenants", opt=requires(Permission.STAFF_TENANTS_READ), include_in_schema=False)
async def tenants(
    request: AnyRequest,
    directory: TenantDirectory,
    settings_book: SettingsBook,
    claims: Claims,
    q: str = "",
    status: str = "",
    where: str = "",
    cursor: str = "",
) -> Response[str]:
    chosen = TenantStatus(status) if status in set(TenantStatus) else None
    page: Page[TenantSummary] = Page([], None)
    problem = None
    try:
        conditions = [setting_condition(settings_book.model, where)] if where.strip() else []
        wanted = TenantFilter(q.strip() or None, chosen, conditions)
        page = await tenants_page(directory, Paging(_PER_PAGE, cursor or None), wanted)
    except InvalidInputError as error:
        problem = error.detail
    template = "console/tenant_rows.html" if wants_part(request) else "console/tenants.html"
    return PAGES.page(
        template,
        request,
        frame_for(claims),
        page=page,
        q=q,
        where=where,
        problem=problem,
        chosen=chosen.value if chosen else "",
        statuses=list(TenantStatus),
    )


@get("/tenants/{slug:str}", opt=requires(Permission.STAFF_TENANTS_READ), include_in_schema=False)
async def tenant(
    request: AnyRequest,
    slug: str,
    directory: TenantDirectory,
    catalog_engine: AsyncEngine,
    claims: Claims,
    cursor: str = "",
) -> Response[str]:
    return await _tenant_page(request, slug, directory, catalog_engine, claims, cursor=cursor)


@post(
    "/tenants/{slug:str}/status", opt=requires(Permission.STAFF_TENANTS_WRITE), include_in_schema=False, status_code=303
)
async def change_tenant_status(
    request: AnyRequest, slug: str, directory: TenantDirectory, catalog_engine: AsyncEngine, claims: Claims
) -> Response[Any]:
    form = await request.form()
    status, reason = str(form.get("status", "")), str(form.get("reason", ""))
    try:
        await change_status(directory, slug, StatusChange(_changeable(status), reason), claims)
    except InvalidInputError as error:
        return await _tenant_page(
            request, slug, directory, catalog_engine, claims, problem=error.detail, wanted=status, reason=reason
        )
    return Redirect(f"/tenants/{slug}", status_code=303)


@get("/cells", opt=requires(Permission.STAFF_CELLS_READ), include_in_schema=False)
async def cells(request: AnyRequest, registry: Registry, claims: Claims) -> Response[str]:
    return PAGES.page(
        "console/cells.html",
        request,
        frame_for(claims),
        cells=await registry.cells(),
        servers=await registry.servers(),
    )


async def _tenant_page(
    request: AnyRequest,
    slug: str,
    directory: TenantDirectory,
    catalog_engine: AsyncEngine,
    claims: Claims,
    *,
    cursor: str = "",
    problem: str | None = None,
    wanted: str = "",
    reason: str = "",
) -> Response[str]:
    found = await directory.get(slug)
    may_see_history = Permission.STAFF_AUDIT_READ in claims.permissions
    history = None
    if may_see_history:
        history = await list_entries(
            catalog_engine, Paging(_HISTORY_PER_PAGE, cursor or None), EntryFilter(), tenant_id=found.id
        )
    template = "console/history_rows.html" if wants_part(request) and problem is None else "console/tenant.html"
    choices = [status for status in _CHANGEABLE if status is not found.status] if found.status in _CHANGEABLE else []
    return PAGES.page(
        template,
        request,
        frame_for(claims),
        422 if problem else 200,
        tenant=found,
        history=history,
        choices=choices if Permission.STAFF_TENANTS_WRITE in claims.permissions else [],
        problem=problem,
        wanted=wanted,
        reason=reason,
    )


def _changeable(status: str) -> TenantStatus:
    if status not in _CHANGEABLE:
        message = "Choose what the tenant's status shall be."
        raise InvalidInputError(message)
    return TenantStatus(status)
