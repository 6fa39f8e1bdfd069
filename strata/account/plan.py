"""A tenant's plan for its own people: what it may have, where that comes from, and how much of it is in use."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, Router, get

from strata.account.surroundings import PAGES, frame_for, tabs_for
from strata.identity.permissions import Permission, requires
from strata.inventory import quotas
from strata.inventory.request_parameters import API_PREFIX
from strata.platform.http.query import refuse_unknown_parameters
from strata.platform.tokens import Claims
from strata.tenancy.context import TenantContext
from strata.tenancy.entitlements.desk import EntitlementDesk
from strata.tenancy.entitlements.grants import FeatureEntitlement
from strata.tenancy.session import Tenants


class PlanLimit(msgspec.Struct, frozen=True):
    name: str
    amount: int | None
    """None: no limit."""
    used: int | None
    """None: not counted."""
    sources: tuple[str, ...]


class PlanOut(msgspec.Struct, frozen=True):
    plan: str
    version: int
    features: tuple[FeatureEntitlement, ...]
    limits: list[PlanLimit]


@get("/plan", summary="What the account may have, and from where", opt=requires(Permission.PLAN_READ), tags=["Account"])
async def get_plan(context: TenantContext, tenants: Tenants, entitlements: EntitlementDesk) -> PlanOut:
    """Each entitlement names its sources: the plan, an add-on, or an override that was agreed with us; the last decides."""
    return await _plan(context, tenants, entitlements)


@get("/account/plan", opt=requires(Permission.PLAN_READ), include_in_schema=False)
async def plan_page(
    request: Request[Any, Any, Any],
    context: TenantContext,
    tenants: Tenants,
    entitlements: EntitlementDesk,
    claims: Claims,
) -> Response[str]:
    return PAGES.page(
        "account/plan.html",
        request,
        frame_for(context, claims),
        found=await _plan(context, tenants, entitlements),
        tabs=tabs_for(claims),
    )


async def _plan(context: TenantContext, tenants: Tenants, entitlements: EntitlementDesk) -> PlanOut:
    found = await entitlements.of(context.slug)
    async with tenants.reading(context) as session:
        used = await quotas.in_use(session)
    limits = [PlanLimit(each.name, each.amount, used.get(each.name), each.sources) for each in found.entitled.limits]
    return PlanOut(found.plan, found.plan_version, found.entitled.features, limits)


ROUTES = [Router(API_PREFIX, route_handlers=[get_plan], before_request=refuse_unknown_parameters), plan_page]
