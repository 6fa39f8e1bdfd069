"""Importing a file by hand: sending it, seeing how far it is, what was refused and why, and stopping it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.datastructures import UploadFile
from litestar.response import Redirect
from openfeature.client import OpenFeatureClient

from strata.identity.permissions import Permission, requires
from strata.inventory.imports import queueing, repository
from strata.inventory.imports.custom_columns import MOVEMENT_PREFIX, PREFIXES, PRODUCT_PREFIX, with_columns
from strata.inventory.imports.errors import UploadEmptyError
from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.flags import ImportsPausedError, are_paused, refuse_while_paused
from strata.inventory.imports.mapping import mapping_titles, packaged
from strata.inventory.imports.models import UNDER_WAY
from strata.inventory.imports.schemas import ImportOptions
from strata.inventory.imports.uploads import spooled
from strata.inventory.pages.surroundings import PAGES, frame_for, why_read_only
from strata.inventory.request_parameters import CursorParameter
from strata.inventory.settings import custom_fields_in
from strata.inventory.storage import StorageFullError
from strata.platform.errors import BadRequestError, ConflictError, InvalidInputError, NotFoundError, StrataError
from strata.platform.paging import Paging
from strata.platform.settings import HttpSettings
from strata.platform.tokens import Claims
from strata.platform.web.pages import wants_part
from strata.tenancy.context import TenantContext
from strata.tenancy.entitlements.asking import FeatureMissingError
from strata.tenancy.session import Tenants

_FORM_BYTES = 32 * 1024 * 1024
"""A browser's form is read as a whole; larger files go over the API or the command."""
_CHUNK_BYTES = 64 * 1024
_LONGEST_NAME = 255

AnyRequest = Request[Any, Any, Any]


@get("/imports", opt=requires(Permission.IMPORTS_READ), include_in_schema=False)
async def imports(
    request: AnyRequest,
    context: TenantContext,
    tenants: Tenants,
    claims: Claims,
    flag_client: OpenFeatureClient,
    cursor: CursorParameter = None,
) -> Response[str]:
    return await _list(request, context, tenants, claims, flag_client, cursor=cursor)


_REFUSALS = (BadRequestError, ConflictError, InvalidInputError, NotFoundError, StorageFullError, FeatureMissingError)


@post(
    "/imports",
    opt=requires(Permission.IMPORTS_WRITE),
    include_in_schema=False,
    status_code=303,
    request_max_body_size=_FORM_BYTES,
)
async def upload_by_form(
    request: AnyRequest,
    context: TenantContext,
    tenants: Tenants,
    claims: Claims,
    http_settings: HttpSettings,
    flag_client: OpenFeatureClient,
) -> Response[Any]:
    form = await request.form()
    file, mapping = form.get("file"), str(form.get("mapping", ""))
    try:
        refuse_while_paused(flag_client, context)
        if not isinstance(file, UploadFile) or not file.filename:
            raise UploadEmptyError
        name = "".join(filter(str.isprintable, file.filename))[:_LONGEST_NAME] or "upload"
        async with spooled(_content(file), http_settings.max_upload_bytes) as path:
            options = ImportOptions(opening_stock=form.get("opening_stock") == "true")
            source = SourceFile(path, name, http_settings.max_unpacked_bytes)
            named = [
                (name, column) for name in form if (column := str(form[name]).strip()) and name.startswith(PREFIXES)
            ]
            order = await queueing.look_at(source, with_columns(packaged(mapping), named), options)
            async with tenants.transaction(context) as session:
                run = await queueing.accept(
                    session, order, actor=claims.sub, storage_limit_mb=context.limits.storage_mb
                )
    except (*_REFUSALS, ImportsPausedError) as error:
        return await _list(request, context, tenants, claims, flag_client, problem=error, form=form)
    return Redirect(f"/imports/{run.id}", status_code=303)


@get("/imports/{import_id:uuid}", opt=requires(Permission.IMPORTS_READ), include_in_schema=False)
async def one_import(
    request: AnyRequest, context: TenantContext, tenants: Tenants, claims: Claims, import_id: UUID
) -> Response[str]:
    """While it is under way the page asks for its own middle, once a second."""
    return await _one(request, context, tenants, claims, import_id)


@get("/imports/{import_id:uuid}/refusals", opt=requires(Permission.IMPORTS_READ), include_in_schema=False)
async def more_refusals(
    request: AnyRequest,
    context: TenantContext,
    tenants: Tenants,
    claims: Claims,
    import_id: UUID,
    cursor: CursorParameter = None,
) -> Response[str]:
    return await _one(request, context, tenants, claims, import_id, cursor=cursor, part="inventory/refusal_rows.html")


@post("/imports/{import_id:uuid}/cancel", opt=requires(Permission.IMPORTS_WRITE), include_in_schema=False)
async def cancel_by_form(
    request: AnyRequest, context: TenantContext, tenants: Tenants, claims: Claims, import_id: UUID
) -> Response[Any]:
    return await _change(request, context, tenants, claims, import_id, cancel=True)


@post("/imports/{import_id:uuid}/resume", opt=requires(Permission.IMPORTS_WRITE), include_in_schema=False)
async def resume_by_form(
    request: AnyRequest, context: TenantContext, tenants: Tenants, claims: Claims, import_id: UUID
) -> Response[Any]:
    return await _change(request, context, tenants, claims, import_id, cancel=False)


ROUTES = [imports, upload_by_form, one_import, more_refusals, cancel_by_form, resume_by_form]


async def _change(
    request: AnyRequest, context: TenantContext, tenants: Tenants, claims: Claims, import_id: UUID, *, cancel: bool
) -> Response[Any]:
    try:
        async with tenants.transaction(context) as session:
            await (queueing.cancel if cancel else queueing.resume)(session, import_id)
    except ConflictError as error:
        return await _one(request, context, tenants, claims, import_id, problem=error)
    return Redirect(f"/imports/{import_id}", status_code=303)


async def _content(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(_CHUNK_BYTES):
        yield chunk


async def _list(
    request: AnyRequest,
    context: TenantContext,
    tenants: Tenants,
    claims: Claims,
    flag_client: OpenFeatureClient,
    *,
    cursor: str | None = None,
    problem: StrataError | None = None,
    form: Mapping[str, Any] = MappingProxyType({}),
) -> Response[str]:
    """`form`: what was sent with a file that was refused."""
    async with tenants.reading(context) as session:
        page = await repository.list_runs(session, Paging(cursor=cursor or None))
    return PAGES.page(
        "inventory/imports.html",
        request,
        frame_for(context, claims),
        200 if problem is None else problem.status,
        page=page,
        mappings=mapping_titles(),
        form=form,
        custom=_columns_wanted(context),
        problem=problem.detail if problem else "",
        may_import=Permission.IMPORTS_WRITE in claims.permissions,
        read_only=why_read_only(context),
        paused=are_paused(flag_client, context),
    )


def _columns_wanted(context: TenantContext) -> list[tuple[str, str]]:
    """Names of the form's fields that ask for columns, and what is in these."""
    fields = custom_fields_in(context)
    of_products = [(f"{PRODUCT_PREFIX}{field.key}", f"{field.label}, of products") for field in fields.product]
    of_movements = [(f"{MOVEMENT_PREFIX}{field.key}", f"{field.label}, of movements") for field in fields.movement]
    return of_products + of_movements


async def _one(
    request: AnyRequest,
    context: TenantContext,
    tenants: Tenants,
    claims: Claims,
    import_id: UUID,
    *,
    cursor: str | None = None,
    part: str = "inventory/import_part.html",
    problem: StrataError | None = None,
) -> Response[str]:
    async with tenants.reading(context) as session:
        run = await repository.run_by_id(session, import_id)
        by_code = await repository.count_refusals(session, import_id)
        refusals = await repository.list_refusals(session, import_id, Paging(cursor=cursor or None))
    read_only = why_read_only(context)
    return PAGES.page(
        part if wants_part(request) else "inventory/one_import.html",
        request,
        frame_for(context, claims),
        200 if problem is None else problem.status,
        run=run,
        by_code=by_code,
        refusals=refusals,
        under_way=run.state in UNDER_WAY,
        may_change=Permission.IMPORTS_WRITE in claims.permissions and not read_only,
        read_only=read_only,
        problem=problem.detail if problem else "",
    )
