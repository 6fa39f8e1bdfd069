"""The tenant's audit for the tenant's own people: by page, as a file, and whether it is what was written."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from litestar import Controller, Request, Response, Router, get
from litestar.params import QueryParameter
from litestar.response import Stream
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.account.surroundings import PAGES, frame_for, tabs_for
from strata.identity.permissions import Permission, requires
from strata.inventory.request_parameters import API_PREFIX, CursorParameter, LimitParameter, TextParameter
from strata.platform.http.query import refuse_unknown_parameters
from strata.platform.paging import DEFAULT_LIMIT, Page, Paging
from strata.platform.tokens import Claims
from strata.platform.web.pages import wants_part
from strata.tenancy.audit.chain import Verification
from strata.tenancy.audit.entries import EntryFilter, EntryOut
from strata.tenancy.audit.export import ExportFormat, begun, exported
from strata.tenancy.audit.reading import every_entry, list_entries, verify
from strata.tenancy.catalog.audit_chain import anchors_of
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants

Moment = Annotated[datetime | None, QueryParameter(required=False, description="With its offset from UTC.")]


class AuditController(Controller):
    path = "/audit"
    tags = ("Audit",)

    @get("/", summary="Who did what, the newest first", opt=requires(Permission.AUDIT_READ))
    async def list_entries(
        self,
        context: TenantContext,
        tenants: Tenants,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
        actor: TextParameter = None,
        action: TextParameter = None,
        subject: TextParameter = None,
        since: Moment = None,
        before: Moment = None,
    ) -> Page[EntryOut]:
        wanted = EntryFilter(actor, action, subject, since, before)
        async with tenants.reading(context) as session:
            return await list_entries(session, Paging(limit, cursor), wanted)

    @get("/export", summary="The audit as a file, the oldest first", opt=requires(Permission.AUDIT_READ))
    async def export(
        self,
        context: TenantContext,
        tenants: Tenants,
        format: ExportFormat = ExportFormat.JSON_LINES,  # noqa: A002 - the parameter's name in the API
        actor: TextParameter = None,
        action: TextParameter = None,
        subject: TextParameter = None,
        since: Moment = None,
        before: Moment = None,
    ) -> Stream:
        """Each line of `jsonl` has its digest and that of the entry before, so that the file can be checked by itself."""
        wanted = EntryFilter(actor, action, subject, since, before)
        name = f"audit-{context.slug}.{format.value}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        lines = exported(await begun(every_entry(tenants, context, wanted)), format)
        return Stream(lines, media_type=format.media_type, headers=headers)

    @get("/verification", summary="Whether the audit is what was written", opt=requires(Permission.AUDIT_READ))
    async def verify(self, context: TenantContext, tenants: Tenants, catalog_engine: AsyncEngine) -> Verification:
        return await verify(tenants, context, await anchors_of(catalog_engine, context.id))


@get("/account/audit", opt=requires(Permission.AUDIT_READ), include_in_schema=False)
async def audit_page(
    request: Request[Any, Any, Any],
    context: TenantContext,
    tenants: Tenants,
    claims: Claims,
    cursor: CursorParameter = None,
    actor: TextParameter = None,
    action: TextParameter = None,
) -> Response[str]:
    wanted = EntryFilter((actor or "").strip() or None, (action or "").strip() or None)
    async with tenants.reading(context) as session:
        page = await list_entries(session, Paging(cursor=cursor or None), wanted)
    return PAGES.page(
        "account/audit_rows.html" if wants_part(request) else "account/audit.html",
        request,
        frame_for(context, claims),
        page=page,
        tabs=tabs_for(claims),
        actor=wanted.actor or "",
        action=wanted.action or "",
    )


ROUTES = [
    Router(API_PREFIX, route_handlers=[AuditController], before_request=refuse_unknown_parameters),
    audit_page,
]
