"""The staff's own audit, and a look at a tenant's, for staff: pages and API, on the console's host alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get
from litestar.params import QueryParameter
from litestar.response import Stream
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.console.surroundings import PAGES, frame_for
from strata.identity.permissions import Permission, requires
from strata.platform.paging import DEFAULT_LIMIT, MAX_LIMIT, Page, Paging
from strata.platform.tokens import Claims
from strata.platform.web.pages import wants_part
from strata.tenancy.audit.chain import ChainedEntry, Verification
from strata.tenancy.audit.entries import EntryFilter, EntryOut
from strata.tenancy.audit.export import ExportFormat, begun, exported
from strata.tenancy.audit.reading import every_entry, list_entries, verify
from strata.tenancy.catalog import audit_chain
from strata.tenancy.context_cache import ContextCache
from strata.tenancy.session import Tenants

Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)]
_OPT = requires(Permission.STAFF_AUDIT_READ)

AnyRequest = Request[Any, Any, Any]


@get("/staff/v1/audit", opt=_OPT, include_in_schema=False)
async def list_audit(
    catalog_engine: AsyncEngine,
    limit: Limit = DEFAULT_LIMIT,
    cursor: str | None = None,
    actor: str | None = None,
    action: str | None = None,
    subject: str | None = None,
) -> Page[EntryOut]:
    return await audit_chain.list_entries(catalog_engine, Paging(limit, cursor), EntryFilter(actor, action, subject))


@get("/staff/v1/audit/export", opt=_OPT, include_in_schema=False)
async def export_audit(
    catalog_engine: AsyncEngine,
    format: ExportFormat = ExportFormat.JSON_LINES,  # noqa: A002 - the parameter's name in the API
) -> Stream:
    return await _file("audit", audit_chain.every_entry(catalog_engine), format)


@get("/staff/v1/audit/verification", opt=_OPT, include_in_schema=False)
async def verify_audit(catalog_engine: AsyncEngine) -> Verification:
    return await audit_chain.verify(catalog_engine)


@get("/staff/v1/tenants/{slug:str}/activity", opt=_OPT, include_in_schema=False)
async def list_activity(
    slug: str, contexts: ContextCache, every_tenant: Tenants, limit: Limit = DEFAULT_LIMIT, cursor: str | None = None
) -> Page[EntryOut]:
    """What the tenant's own people did, from the tenant's cell."""
    async with every_tenant.reading(await contexts.get_by_slug(slug)) as session:
        return await list_entries(session, Paging(limit, cursor), EntryFilter())


@get("/staff/v1/tenants/{slug:str}/activity/export", opt=_OPT, include_in_schema=False)
async def export_activity(
    slug: str,
    contexts: ContextCache,
    every_tenant: Tenants,
    format: ExportFormat = ExportFormat.JSON_LINES,  # noqa: A002 - the parameter's name in the API
) -> Stream:
    return await _file(f"audit-{slug}", every_entry(every_tenant, await contexts.get_by_slug(slug)), format)


async def _file(name: str, entries: AsyncIterator[ChainedEntry], form: ExportFormat) -> Stream:
    headers = {"Content-Disposition": f'attachment; filename="{name}.{form.value}"', "Cache-Control": "no-store"}
    return Stream(exported(await begun(entries), form), media_type=form.media_type, headers=headers)


@get("/staff/v1/tenants/{slug:str}/activity/verification", opt=_OPT, include_in_schema=False)
async def verify_activity(
    slug: str, contexts: ContextCache, every_tenant: Tenants, catalog_engine: AsyncEngine
) -> Verification:
    context = await contexts.get_by_slug(slug)
    return await verify(every_tenant, context, await audit_chain.anchors_of(catalog_engine, context.id))


@get("/audit", opt=_OPT, include_in_schema=False)
async def audit_page(
    request: AnyRequest,
    catalog_engine: AsyncEngine,
    claims: Claims,
    cursor: str = "",
    actor: str = "",
    action: str = "",
    subject: str = "",
) -> Response[str]:
    wanted = _wanted(actor, action, subject)
    page = await audit_chain.list_entries(catalog_engine, Paging(cursor=cursor or None), wanted)
    shown = _Shown("Staff and platform", "/audit", "/staff/v1/audit/export")
    return _page(request, claims, page, wanted, shown)


@get("/tenants/{slug:str}/activity", opt=_OPT, include_in_schema=False)
async def activity_page(
    request: AnyRequest,
    slug: str,
    contexts: ContextCache,
    every_tenant: Tenants,
    claims: Claims,
    cursor: str = "",
    actor: str = "",
    action: str = "",
    subject: str = "",
) -> Response[str]:
    context = await contexts.get_by_slug(slug)
    wanted = _wanted(actor, action, subject)
    async with every_tenant.reading(context) as session:
        page = await list_entries(session, Paging(cursor=cursor or None), wanted)
    tenant = f"/tenants/{slug}"
    export = f"/staff/v1{tenant}/activity/export"
    shown = _Shown(f"What {context.name} did itself", f"{tenant}/activity", export, back=tenant)
    return _page(request, claims, page, wanted, shown)


class _Shown(msgspec.Struct, frozen=True):
    title: str
    address: str
    export: str
    back: str | None = None


def _wanted(actor: str, action: str, subject: str) -> EntryFilter:
    return EntryFilter(actor.strip() or None, action.strip() or None, subject.strip() or None)


def _page(request: AnyRequest, claims: Claims, page: Page[Any], wanted: EntryFilter, shown: _Shown) -> Response[str]:
    template = "console/audit_rows.html" if wants_part(request) else "console/audit.html"
    asked = {"actor": wanted.actor or "", "action": wanted.action or "", "subject": wanted.subject or ""}
    return PAGES.page(template, request, frame_for(claims), page=page, shown=shown, asked=asked)


ROUTES: list[Any] = [
    list_audit,
    export_audit,
    verify_audit,
    list_activity,
    export_activity,
    verify_activity,
    audit_page,
    activity_page,
]
