"""Feature flags for staff: all of them, one of them with its dry run, and what one tenant gets."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.response import Redirect
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.console.surroundings import PAGES, frame_for
from strata.console.tenants import actor
from strata.identity.permissions import Permission, requires
from strata.platform.errors import ConflictError, InvalidInputError, NotFoundError
from strata.platform.paging import Paging
from strata.platform.tokens import Claims
from strata.tenancy.catalog.tenants import TenantDirectory
from strata.tenancy.context_cache import ContextCache
from strata.tenancy.flags.desk import FlagDesk, FlagView
from strata.tenancy.flags.dry_run import DryRun
from strata.tenancy.flags.holder import Flags
from strata.tenancy.flags.making import flag_from, share_of
from strata.tenancy.flags.model import Flag
from strata.tenancy.flags.stale import stale_flags
from strata.tenancy.flags.writing import NewOverride
from strata.tenancy.plans import plans

AnyRequest = Request[Any, Any, Any]
Form = dict[str, str]

_STALE_AFTER_DAYS = 30
_SHOWN = 100
_REFUSALS = (InvalidInputError, ConflictError, NotFoundError)
_READ = requires(Permission.STAFF_FLAGS_READ)
_WRITE = requires(Permission.STAFF_FLAGS_WRITE)


@get("/flags", opt=_READ, include_in_schema=False)
async def flags_page(
    request: AnyRequest, flag_desk: FlagDesk, catalog_engine: AsyncEngine, claims: Claims
) -> Response[str]:
    return await _list(request, flag_desk, catalog_engine, claims)


@post("/flags", opt=_WRITE, include_in_schema=False, status_code=303)
async def make_flag(
    request: AnyRequest, flag_desk: FlagDesk, catalog_engine: AsyncEngine, claims: Claims
) -> Response[Any]:
    form = await _form(request)
    key = form.get("key", "")
    try:
        if key in {each.flag.key for each in await flag_desk.every()}:
            message = f"There is a flag «{key}» already."
            raise ConflictError(message)
        await flag_desk.put(flag_from(key, {"description": form.get("description", "")}, None), actor(claims))
    except _REFUSALS as error:
        return await _list(request, flag_desk, catalog_engine, claims, problem=error.detail, given=form)
    return Redirect(f"/flags/{key}", status_code=303)


@get("/flags/{key:str}", opt=_READ, include_in_schema=False)
async def flag_page(request: AnyRequest, key: str, flag_desk: FlagDesk, claims: Claims) -> Response[str]:
    return await _one(request, key, flag_desk, claims)


@post("/flags/{key:str}", opt=_WRITE, include_in_schema=False, status_code=303)
async def change_flag(request: AnyRequest, key: str, flag_desk: FlagDesk, claims: Claims) -> Response[Any]:
    """The form as it is: tried, when `try` was pressed, else saved."""
    form = await _form(request)
    try:
        wanted = _wanted(form, (await flag_desk.get(key)).flag)
        if "try" in form:
            return await _one(request, key, flag_desk, claims, given=form, tried=await flag_desk.try_flag(wanted, key))
        await flag_desk.put(wanted, actor(claims), reason=form.get("reason") or None, if_match=form.get("etag") or None)
    except _REFUSALS as error:
        return await _one(request, key, flag_desk, claims, given=form, problem=error.detail)
    return Redirect(f"/flags/{key}", status_code=303)


@post("/flags/{key:str}/kill", opt=_WRITE, include_in_schema=False, status_code=303)
async def switch_flag(request: AnyRequest, key: str, flag_desk: FlagDesk, claims: Claims) -> Redirect:
    killed = (await _form(request)).get("killed") == "true"
    await flag_desk.kill(key, actor(claims), killed=killed, reason="on the console")
    return Redirect(f"/flags/{key}", status_code=303)


@post("/flags/{key:str}/undo", opt=_WRITE, include_in_schema=False, status_code=303)
async def undo_flag(request: AnyRequest, key: str, flag_desk: FlagDesk, claims: Claims) -> Response[Any]:
    try:
        await flag_desk.undo(key, actor(claims), reason="on the console")
        await flag_desk.get(key)
    except NotFoundError:
        # What was taken back is that it was made.
        return Redirect("/flags", status_code=303)
    except _REFUSALS as error:
        return await _one(request, key, flag_desk, claims, problem=error.detail)
    return Redirect(f"/flags/{key}", status_code=303)


@get("/tenants/{slug:str}/flags", opt=_READ, include_in_schema=False)
async def tenant_flags_page(
    request: AnyRequest,
    slug: str,
    directory: TenantDirectory,
    flag_desk: FlagDesk,
    flags: Flags,
    contexts: ContextCache,
    claims: Claims,
) -> Response[str]:
    return await _of_tenant(request, slug, directory, flag_desk, flags, contexts, claims)


@post("/tenants/{slug:str}/flags", opt=_WRITE, include_in_schema=False, status_code=303)
async def override_flag(
    request: AnyRequest,
    slug: str,
    directory: TenantDirectory,
    flag_desk: FlagDesk,
    flags: Flags,
    contexts: ContextCache,
    claims: Claims,
) -> Response[Any]:
    form = await _form(request)
    variant = form.get("variant", "")
    new = NewOverride(variant, form.get("reason") or "on the console") if variant else None
    try:
        await flag_desk.set_override(form.get("flag", ""), slug, new, actor(claims), "on the console")
    except _REFUSALS as error:
        return await _of_tenant(request, slug, directory, flag_desk, flags, contexts, claims, problem=error.detail)
    return Redirect(f"/tenants/{slug}/flags", status_code=303)


async def _form(request: AnyRequest) -> Form:
    return {name: str(value).strip() for name, value in (await request.form()).items()}


def _wanted(form: Form, before: Flag) -> Flag:
    try:
        document = msgspec.json.decode(form.get("document", "") or "{}")
    except msgspec.DecodeError as error:
        raise InvalidInputError(f"The document is no JSON: {error}.") from None
    if not isinstance(document, dict):
        raise InvalidInputError("The document is a JSON object.")
    shown = {"rollout": share_of(form.get("rollout", "0")), "plan_minimum": form.get("plan_minimum") or None}
    return flag_from(before.key, {**document, **shown, "description": form.get("description", "")}, before)


async def _list(
    request: AnyRequest,
    flag_desk: FlagDesk,
    catalog_engine: AsyncEngine,
    claims: Claims,
    *,
    problem: str | None = None,
    given: Form | None = None,
) -> Response[str]:
    stale = {each.key: each.why for each in await stale_flags(catalog_engine, _STALE_AFTER_DAYS)}
    return PAGES.page(
        "console/flags.html",
        request,
        frame_for(claims),
        422 if problem else 200,
        flags=await flag_desk.every(),
        stale=stale,
        stale_days=_STALE_AFTER_DAYS,
        problem=problem,
        given=given or {},
        may_change=Permission.STAFF_FLAGS_WRITE in claims.permissions,
    )


async def _one(
    request: AnyRequest,
    key: str,
    flag_desk: FlagDesk,
    claims: Claims,
    *,
    given: Form | None = None,
    tried: DryRun | None = None,
    problem: str | None = None,
) -> Response[str]:
    view = await flag_desk.get(key)
    return PAGES.page(
        "console/flag.html",
        request,
        frame_for(claims),
        422 if problem else 200,
        view=view,
        form=given or _filled(view),
        overrides=await flag_desk.overrides(key),
        history=(await flag_desk.history(key, Paging(20))).items,
        plans=list(plans()),
        tried=tried,
        shown=_SHOWN,
        problem=problem,
        may_change=Permission.STAFF_FLAGS_WRITE in claims.permissions,
    )


def _filled(view: FlagView) -> Form:
    """Members with fields of their own are not in the document beside them."""
    document = msgspec.to_builtins(view.flag)
    for member in ("key", "description", "rollout", "plan_minimum"):
        document.pop(member, None)
    return {
        "description": view.flag.description,
        "rollout": f"{view.flag.rollout / 100:g}",
        "plan_minimum": view.flag.plan_minimum or "",
        "document": msgspec.json.format(msgspec.json.encode(document), indent=2).decode(),
        "etag": f'"v{view.version}"',
    }


async def _of_tenant(
    request: AnyRequest,
    slug: str,
    directory: TenantDirectory,
    flag_desk: FlagDesk,
    flags: Flags,
    contexts: ContextCache,
    claims: Claims,
    *,
    problem: str | None = None,
) -> Response[str]:
    tenant = await directory.get(slug)
    context = await contexts.get_by_id(tenant.id)
    views = await flag_desk.every()
    return PAGES.page(
        "console/tenant_flags.html",
        request,
        frame_for(claims),
        422 if problem else 200,
        tenant=tenant,
        found=[(view.flag, flags.evaluate(view.flag.key, context)) for view in views],
        problem=problem,
        may_change=Permission.STAFF_FLAGS_WRITE in claims.permissions,
    )


ROUTES: list[Any] = [
    flags_page,
    make_flag,
    flag_page,
    change_flag,
    switch_flag,
    undo_flag,
    tenant_flags_page,
    override_flag,
]
