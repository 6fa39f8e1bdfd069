"""The tenant's settings for its own administrators: API and page."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from litestar import Controller, Request, Response, Router, get, patch, post
from litestar.params import PathParameter
from litestar.response import Redirect

from strata.account.surroundings import PAGES, frame_for, tabs_for
from strata.identity.permissions import Permission, requires
from strata.inventory.request_parameters import (
    API_PREFIX,
    CursorParameter,
    IfMatchHeader,
    IfNoneMatchHeader,
    LimitParameter,
)
from strata.platform.errors import StrataError
from strata.platform.etags import is_unchanged
from strata.platform.http.json_body import json_of
from strata.platform.http.query import refuse_unknown_parameters
from strata.platform.paging import DEFAULT_LIMIT, Page, Paging
from strata.platform.tokens import Claims
from strata.tenancy.audit import record
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants
from strata.tenancy.settings.book import KeptSettings, SettingsBook, SettingsChange
from strata.tenancy.settings.form import FORM_ERRORS, SettingsForm, change_number, shown_in_form
from strata.tenancy.settings.merging import Document, difference

MERGE_PATCH = "application/merge-patch+json"
_ADDRESS = "/account/settings"

AnyRequest = Request[Any, Any, Any]
Number = Annotated[int, PathParameter(ge=1)]


def answered(kept: KeptSettings) -> Response[KeptSettings]:
    return Response(kept, headers={"ETag": kept.etag, "Accept-Patch": MERGE_PATCH})


class SettingsController(Controller):
    path = "/settings"
    tags = ("Settings",)

    @get("/", summary="The settings, with their defaults", opt=requires(Permission.SETTINGS_READ))
    async def read(
        self, context: TenantContext, settings_book: SettingsBook, if_none_match: IfNoneMatchHeader = None
    ) -> Response[Any]:
        """`document` is what was set; `settings` has the default of everything else. A secret shows as a reference."""
        kept = await settings_book.of(context.id)
        if is_unchanged(if_none_match, kept.etag):
            return Response(b"", status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": kept.etag})
        return answered(kept)

    @get("/schema", summary="The JSON Schema of the settings", opt=requires(Permission.SETTINGS_READ))
    async def schema(self, settings_book: SettingsBook) -> Response[dict[str, Any]]:
        return Response(settings_book.model.schema, media_type="application/schema+json")

    @patch("/", summary="Change some settings (RFC 7396)", opt=requires(Permission.SETTINGS_WRITE))
    async def change(
        self,
        request: AnyRequest,
        context: TenantContext,
        tenants: Tenants,
        settings_book: SettingsBook,
        claims: Claims,
        if_match: IfMatchHeader = None,
    ) -> Response[KeptSettings]:
        """If-Match is needed: the ETag that was read. null brings a default back; what is absent stays."""
        return answered(await _change(context, tenants, settings_book, claims, await json_of(request), if_match))

    @get("/history", summary="Who changed what, the newest first", opt=requires(Permission.SETTINGS_READ))
    async def history(
        self,
        context: TenantContext,
        settings_book: SettingsBook,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
    ) -> Page[SettingsChange]:
        return await settings_book.history(context.id, Paging(limit, cursor))

    @post(
        "/history/{number:int}/undo",
        summary="Take back what one change did",
        opt=requires(Permission.SETTINGS_WRITE),
        status_code=200,
    )
    async def undo(
        self, context: TenantContext, tenants: Tenants, settings_book: SettingsBook, claims: Claims, number: Number
    ) -> Response[KeptSettings]:
        return answered(await _undo(context, tenants, settings_book, claims, number))


async def _change(
    context: TenantContext, tenants: Tenants, book: SettingsBook, claims: Claims, wanted: object, if_match: str | None
) -> KeptSettings:
    """In the catalog, and told to the tenant's audit: its cell is entered first, so that one that is away changes nothing."""
    async with tenants.transaction(context) as session:
        before = await book.of(context.id)
        kept = await book.patch(context.id, wanted, if_match=if_match, actor=claims.sub, staff=False)
        if kept.version != before.version:
            record(
                session, "settings.change", f"version {kept.version}", patch=difference(before.document, kept.document)
            )
    return kept


async def _undo(
    context: TenantContext, tenants: Tenants, book: SettingsBook, claims: Claims, number: int
) -> KeptSettings:
    async with tenants.transaction(context) as session:
        kept = await book.undo(context.id, number, actor=claims.sub, staff=False)
        record(session, "settings.undo", f"version {kept.version}", undoes=number)
    return kept


@get(_ADDRESS, opt=requires(Permission.SETTINGS_READ), include_in_schema=False)
async def settings_page(
    request: AnyRequest, context: TenantContext, settings_book: SettingsBook, claims: Claims, saved: bool = False
) -> Response[str]:
    return await _page(request, context, settings_book, claims, saved=saved)


@post(_ADDRESS, opt=requires(Permission.SETTINGS_WRITE), include_in_schema=False, status_code=303)
async def change_by_form(
    request: AnyRequest, context: TenantContext, tenants: Tenants, settings_book: SettingsBook, claims: Claims
) -> Response[Any]:
    form = await request.form()
    kept = await settings_book.of(context.id)
    wanted = SettingsForm(settings_book.model.schema).patch(form, kept.settings)
    try:
        await _change(context, tenants, settings_book, claims, wanted, str(form.get("etag", "")))
    except FORM_ERRORS as error:
        return await _page(request, context, settings_book, claims, error=error, typed=wanted)
    return Redirect(f"{_ADDRESS}?saved=true", status_code=303)


@post(f"{_ADDRESS}/undo", opt=requires(Permission.SETTINGS_WRITE), include_in_schema=False, status_code=303)
async def undo_by_form(
    request: AnyRequest, context: TenantContext, tenants: Tenants, settings_book: SettingsBook, claims: Claims
) -> Response[Any]:
    try:
        await _undo(context, tenants, settings_book, claims, change_number(await request.form()))
    except FORM_ERRORS as error:
        return await _page(request, context, settings_book, claims, error=error)
    return Redirect(f"{_ADDRESS}?saved=true", status_code=303)


async def _page(
    request: AnyRequest,
    context: TenantContext,
    book: SettingsBook,
    claims: Claims,
    *,
    saved: bool = False,
    error: StrataError | None = None,
    typed: Document | None = None,
) -> Response[str]:
    may_write = Permission.SETTINGS_WRITE in claims.permissions
    shown = await shown_in_form(book, context.id, error=error, typed=typed, staff=False, read_only=not may_write)
    return PAGES.page(
        "account/settings.html",
        request,
        frame_for(context, claims),
        error.status if error else 200,
        tabs=tabs_for(claims),
        address=_ADDRESS,
        may_write=may_write,
        saved=saved,
        **shown,
    )


ROUTES: list[Any] = [
    Router(API_PREFIX, route_handlers=[SettingsController], before_request=refuse_unknown_parameters),
    settings_page,
    change_by_form,
    undo_by_form,
]
