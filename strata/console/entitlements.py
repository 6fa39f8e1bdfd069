"""What a tenant is entitled to and why, its plan, and what another one would change: for staff's programs and as a page."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, Response, delete, get, post
from litestar.params import QueryParameter
from litestar.response import Redirect

from strata.console.surroundings import PAGES, frame_for
from strata.console.tenants import Reason, actor
from strata.identity.permissions import Permission, requires
from strata.platform.errors import ConflictError, InvalidInputError, NotFoundError
from strata.platform.tokens import Claims
from strata.tenancy.catalog.tenants import TenantDirectory
from strata.tenancy.entitlements.desk import EntitlementDesk, NewGrant, TenantEntitlements
from strata.tenancy.entitlements.grants import GrantKind
from strata.tenancy.entitlements.plan_change import PlanChange
from strata.tenancy.plans import Limits, catalogue, plans

AnyRequest = Request[Any, Any, Any]
Why = Annotated[str, QueryParameter(min_length=1, max_length=500)]


class PlanOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    plan: str
    version: int | None = None
    """None: the newest."""
    reason: Reason | None = None


class EntitlementsApi(Controller):
    path = "/staff/v1/tenants/{slug:str}"
    tags = ("Staff",)
    # Tenants read the application's description on their own hosts; nothing of this concerns them.
    include_in_schema = False

    @get("/entitlements", opt=requires(Permission.STAFF_TENANTS_READ), summary="What a tenant may have, and from where")
    async def show(self, slug: str, entitlements: EntitlementDesk) -> TenantEntitlements:
        return await entitlements.of(slug)

    @post(
        "/entitlements",
        opt=requires(Permission.STAFF_TENANTS_WRITE),
        summary="Grant an add-on, feature or limit",
        status_code=200,
    )
    async def grant(
        self, slug: str, data: NewGrant, entitlements: EntitlementDesk, claims: Claims
    ) -> TenantEntitlements:
        return await entitlements.grant(slug, data, actor(claims))

    @delete(
        "/entitlements/{kind:str}/{name:str}",
        opt=requires(Permission.STAFF_TENANTS_WRITE),
        summary="End a grant",
        status_code=200,
    )
    async def revoke(
        self, slug: str, kind: GrantKind, name: str, reason: Why, entitlements: EntitlementDesk, claims: Claims
    ) -> TenantEntitlements:
        return await entitlements.revoke(slug, kind, name, reason, actor(claims))

    @post(
        "/plan/preview",
        opt=requires(Permission.STAFF_TENANTS_READ, changes_nothing=True),
        summary="What a change of plan would do",
        status_code=200,
    )
    async def preview(self, slug: str, data: PlanOrder, entitlements: EntitlementDesk) -> PlanChange:
        return await entitlements.preview(slug, data.plan, data.version)

    @post("/plan", opt=requires(Permission.STAFF_TENANTS_WRITE), summary="Change a tenant's plan", status_code=200)
    async def change(self, slug: str, data: PlanOrder, entitlements: EntitlementDesk, claims: Claims) -> PlanChange:
        return await entitlements.change_plan(slug, data.plan, actor(claims), version=data.version, reason=data.reason)


@get("/tenants/{slug:str}/plan", opt=requires(Permission.STAFF_TENANTS_READ), include_in_schema=False)
async def plan_page(
    request: AnyRequest,
    slug: str,
    directory: TenantDirectory,
    entitlements: EntitlementDesk,
    claims: Claims,
    to: str = "",
) -> Response[str]:
    """`to`: a plan; shows what moving there would change, to be confirmed."""
    if not to:
        return await _page(request, slug, directory, entitlements, claims)
    try:
        return await _page(request, slug, directory, entitlements, claims, change=await entitlements.preview(slug, to))
    except InvalidInputError as error:
        return await _page(request, slug, directory, entitlements, claims, problem=error.detail)


@post(
    "/tenants/{slug:str}/plan", opt=requires(Permission.STAFF_TENANTS_WRITE), include_in_schema=False, status_code=303
)
async def change_plan_by_form(
    request: AnyRequest, slug: str, directory: TenantDirectory, entitlements: EntitlementDesk, claims: Claims
) -> Response[Any]:
    form = await request.form()
    try:
        reason = str(form.get("reason", "")).strip()[:500] or None
        await entitlements.change_plan(slug, str(form.get("plan", "")), actor(claims), reason=reason)
    except (InvalidInputError, ConflictError) as error:
        return await _page(request, slug, directory, entitlements, claims, problem=error.detail)
    return Redirect(f"/tenants/{slug}/plan", status_code=303)


@post(
    "/tenants/{slug:str}/grants", opt=requires(Permission.STAFF_TENANTS_WRITE), include_in_schema=False, status_code=303
)
async def grant_by_form(
    request: AnyRequest, slug: str, directory: TenantDirectory, entitlements: EntitlementDesk, claims: Claims
) -> Response[Any]:
    form = {name: str(value).strip() for name, value in (await request.form()).items()}
    try:
        await entitlements.grant(slug, _new_grant(form), actor(claims))
    except (InvalidInputError, ConflictError) as error:
        return await _page(request, slug, directory, entitlements, claims, problem=error.detail, given=form)
    return Redirect(f"/tenants/{slug}/plan", status_code=303)


@post(
    "/tenants/{slug:str}/grants/end",
    opt=requires(Permission.STAFF_TENANTS_WRITE),
    include_in_schema=False,
    status_code=303,
)
async def revoke_by_form(
    request: AnyRequest, slug: str, directory: TenantDirectory, entitlements: EntitlementDesk, claims: Claims
) -> Response[Any]:
    form = await request.form()
    try:
        kind = GrantKind(str(form.get("kind", "")))
        await entitlements.revoke(slug, kind, str(form.get("name", "")), "ended on the console", actor(claims))
    except (ValueError, NotFoundError, ConflictError):
        # Ended already, perhaps by a colleague: the page shows what there is now.
        return await _page(request, slug, directory, entitlements, claims, problem="That grant is not there any more.")
    return Redirect(f"/tenants/{slug}/plan", status_code=303)


def _new_grant(form: dict[str, str]) -> NewGrant:
    """From «feature sso», «limit skus», «add-on extra-skus» and a free field for the number."""
    kind, _, name = form.get("what", "").partition(" ")
    amount = form.get("amount", "")
    document = {
        "kind": kind,
        "name": name,
        "reason": form.get("reason", ""),
        "amount": int(amount) if amount.isdecimal() else None,
        "given": form.get("withhold") != "true",
        "expires_at": f"{form['expires']}T00:00:00Z" if form.get("expires") else None,
    }
    try:
        return msgspec.convert(document, NewGrant)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"That grant is incomplete: {error}.") from None


async def _page(
    request: AnyRequest,
    slug: str,
    directory: TenantDirectory,
    entitlements: EntitlementDesk,
    claims: Claims,
    *,
    change: PlanChange | None = None,
    problem: str | None = None,
    given: dict[str, str] | None = None,
) -> Response[str]:
    return PAGES.page(
        "console/plan.html",
        request,
        frame_for(claims),
        422 if problem else 200,
        tenant=await directory.get(slug),
        found=await entitlements.of(slug),
        change=change,
        problem=problem,
        given=given or {},
        plans=list(plans().values()),
        add_ons=sorted(catalogue().add_ons),
        limits=Limits.__struct_fields__,
        features=sorted(catalogue().features()),
        may_change=Permission.STAFF_TENANTS_WRITE in claims.permissions,
    )


ROUTES: list[Any] = [EntitlementsApi, plan_page, change_plan_by_form, grant_by_form, revoke_by_form]
