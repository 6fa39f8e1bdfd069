from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, get, post
from litestar.openapi.spec import Example
from litestar.params import Body, QueryParameter

from strata.identity.permissions import Permission, requires
from strata.inventory.approvals import requests
from strata.inventory.approvals.models import RequestState
from strata.inventory.approvals.requests import RequestOut
from strata.inventory.request_parameters import CursorParameter, LimitParameter
from strata.inventory.text_rules import Note
from strata.platform.paging import DEFAULT_LIMIT, Page, Paging
from strata.platform.tokens import Claims
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants

_WHY = Example(summary="Why", value={"note": "checked against the delivery note"})
# Litestar keeps the name `state` for itself.
StateParameter = Annotated[RequestState | None, QueryParameter(name="state", required=False)]


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    note: Note | None = None
    """Why; shown to whoever asked."""


class MovementRequestController(Controller):
    path = "/movement-requests"
    tags = ("Movements",)

    @get("/", summary="Movements that wait or waited for approval", opt=requires(Permission.MOVEMENTS_READ))
    async def list_requests(
        self,
        context: TenantContext,
        tenants: Tenants,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
        in_state: StateParameter = None,
    ) -> Page[RequestOut]:
        async with tenants.reading(context) as session:
            return await requests.list_requests(session, Paging(limit, cursor), in_state)

    @get("/{request_id:uuid}", summary="One request", opt=requires(Permission.MOVEMENTS_READ))
    async def get_request(self, context: TenantContext, tenants: Tenants, request_id: UUID) -> RequestOut:
        async with tenants.reading(context) as session:
            return await requests.request_by_id(session, request_id)

    @post(
        "/{request_id:uuid}/approval",
        summary="Approve somebody else's movement, which posts it",
        opt=requires(Permission.MOVEMENTS_APPROVE),
        status_code=200,
    )
    async def approve(
        self,
        context: TenantContext,
        tenants: Tenants,
        claims: Claims,
        request_id: UUID,
        data: Annotated[Decision | None, Body(examples=[_WHY])] = None,
    ) -> RequestOut:
        async with tenants.transaction(context) as session:
            return await requests.approve(session, request_id, data.note if data else None, actor=claims.sub)

    @post(
        "/{request_id:uuid}/rejection",
        summary="Reject a movement that waits",
        opt=requires(Permission.MOVEMENTS_APPROVE),
        status_code=200,
    )
    async def reject(
        self,
        context: TenantContext,
        tenants: Tenants,
        claims: Claims,
        request_id: UUID,
        data: Annotated[Decision | None, Body(examples=[_WHY])] = None,
    ) -> RequestOut:
        async with tenants.transaction(context) as session:
            return await requests.reject(session, request_id, data.note if data else None, actor=claims.sub)
