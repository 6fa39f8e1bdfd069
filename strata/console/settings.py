"""A tenant's settings for staff, who set what tenants cannot: pages and API, on the console's host alone."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, get, patch, post
from litestar.params import HeaderParameter, QueryParameter
from litestar.response import Redirect

from strata.console.surroundings import PAGES, frame_for
from strata.console.tenants import actor
from strata.identity.permissions import Permission, requires
from strata.platform.errors import StrataError
from strata.platform.http.json_body import json_of
from strata.platform.paging import DEFAULT_LIMIT, MAX_LIMIT, Page, Paging
from strata.platform.tokens import Claims
from strata.tenancy.catalog.tenants import TenantDirectory
from strata.tenancy.settings.book import KeptSettings, SettingsBook, SettingsChange
from strata.tenancy.settings.form import FORM_ERRORS, SettingsForm, change_number, shown_in_form
from strata.tenancy.settings.merging import Document

_READ, _WRITE = requires(Permission.STAFF_TENANTS_READ), requires(Permission.STAFF_TENANTS_WRITE)
_API, _PAGE = "/staff/v1/tenants/{slug:str}/settings", "/tenants/{slug:str}/settings"

AnyRequest = Request[Any, Any, Any]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)]
IfMatch = Annotated[str | None, HeaderParameter(name="If-Match", required=False)]


def _answered(kept: KeptSettings) -> Response[KeptSettings]:
    return Response(kept, headers={"ETag": kept.etag})


@get(_API, opt=_READ, include_in_schema=False)
async def read_settings(slug: str, directory: TenantDirectory, settings_book: SettingsBook) -> Response[KeptSettings]:
    return _answered(await settings_book.of((await directory.get(slug)).id))


@patch(_API, opt=_WRITE, include_in_schema=False)
async def change_settings(
    request: AnyRequest,
    slug: str,
    directory: TenantDirectory,
    settings_book: SettingsBook,
    claims: Claims,
    if_match: IfMatch = None,
) -> Response[KeptSettings]:
    tenant = await directory.get(slug)
    wanted = await json_of(request)
    return _answered(await settings_book.patch(tenant.id, wanted, if_match=if_match, actor=actor(claims), staff=True))


@get(f"{_API}/history", opt=_READ, include_in_schema=False)
async def settings_history(
    slug: str,
    directory: TenantDirectory,
    settings_book: SettingsBook,
    limit: Limit = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> Page[SettingsChange]:
    return await settings_book.history((await directory.get(slug)).id, Paging(limit, cursor))


@post(f"{_API}/history/{{number:int}}/undo", opt=_WRITE, include_in_schema=False, status_code=200)
async def undo_settings(
    slug: str, number: int, directory: TenantDirectory, settings_book: SettingsBook, claims: Claims
) -> Response[KeptSettings]:
    tenant = await directory.get(slug)
    return _answered(await settings_book.undo(tenant.id, number, actor=actor(claims), staff=True))


@get(_PAGE, opt=_READ, include_in_schema=False)
async def settings_page(
    request: AnyRequest,
    slug: str,
    directory: TenantDirectory,
    settings_book: SettingsBook,
    claims: Claims,
    saved: bool = False,
) -> Response[str]:
    return await _page(request, slug, directory, settings_book, claims, saved=saved)


@post(_PAGE, opt=_WRITE, include_in_schema=False, status_code=303)
async def change_settings_by_form(
    request: AnyRequest, slug: str, directory: TenantDirectory, settings_book: SettingsBook, claims: Claims
) -> Response[Any]:
    form = await request.form()
    tenant = await directory.get(slug)
    kept = await settings_book.of(tenant.id)
    wanted = SettingsForm(settings_book.model.schema, staff=True).patch(form, kept.settings)
    try:
        await settings_book.patch(
            tenant.id, wanted, if_match=str(form.get("etag", "")), actor=actor(claims), staff=True
        )
    except FORM_ERRORS as error:
        return await _page(request, slug, directory, settings_book, claims, error=error, typed=wanted)
    return Redirect(f"/tenants/{slug}/settings?saved=true", status_code=303)


@post(f"{_PAGE}/undo", opt=_WRITE, include_in_schema=False, status_code=303)
async def undo_settings_by_form(
    request: AnyRequest, slug: str, directory: TenantDirectory, settings_book: SettingsBook, claims: Claims
) -> Response[Any]:
    tenant = await directory.get(slug)
    try:
        await settings_book.undo(tenant.id, change_number(await request.form()), actor=actor(claims), staff=True)
    except FORM_ERRORS as error:
        return await _page(request, slug, directory, settings_book, claims, error=error)
    return Redirect(f"/tenants/{slug}/settings?saved=true", status_code=303)


async def _page(
    request: AnyRequest,
    slug: str,
    directory: TenantDirectory,
    book: SettingsBook,
    claims: Claims,
    *,
    saved: bool = False,
    error: StrataError | None = None,
    typed: Document | None = None,
) -> Response[str]:
    tenant = await directory.get(slug)
    may_write = Permission.STAFF_TENANTS_WRITE in claims.permissions
    shown = await shown_in_form(book, tenant.id, error=error, typed=typed, staff=True, read_only=not may_write)
    return PAGES.page(
        "console/settings.html",
        request,
        frame_for(claims),
        error.status if error else 200,
        tenant=tenant,
        address=f"/tenants/{slug}/settings",
        may_write=may_write,
        saved=saved,
        **shown,
    )


ROUTES: list[Any] = [
    read_settings,
    change_settings,
    settings_history,
    undo_settings,
    settings_page,
    change_settings_by_form,
    undo_settings_by_form,
]
