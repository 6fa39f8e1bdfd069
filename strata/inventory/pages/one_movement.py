"""A movement with its lines, and taking it back."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

import msgspec
from litestar import Request, Response, get, post
from litestar.response import Redirect

from strata.identity.permissions import Permission, requires
from strata.inventory.custom.values import Entity, labelled
from strata.inventory.idempotency import IdempotencyConflictError, request_key
from strata.inventory.movements.posting import reverse_movement
from strata.inventory.movements.repository import movement_by_id, reversal_of
from strata.inventory.movements.schemas import ReversalIn
from strata.inventory.pages.scanned_codes import product_ids
from strata.inventory.pages.surroundings import PAGES, frame_for, why_read_only
from strata.platform.errors import ConflictError, UnavailableError
from strata.platform.tokens import Claims
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants

AnyRequest = Request[Any, Any, Any]


class ReversalDraft(msgspec.Struct):
    reason: str = ""
    key: str = msgspec.field(default_factory=lambda: str(uuid4()))
    problem: str = ""
    reason_problem: str = ""


@get("/movements/{movement_id:uuid}", opt=requires(Permission.MOVEMENTS_READ), include_in_schema=False)
async def movement(
    request: AnyRequest, context: TenantContext, tenants: Tenants, claims: Claims, movement_id: UUID
) -> Response[str]:
    return await _page(request, context, tenants, claims, movement_id, ReversalDraft())


@post(
    "/movements/{movement_id:uuid}/reversal",
    opt=requires(Permission.MOVEMENTS_WRITE),
    include_in_schema=False,
    status_code=303,
)
async def reverse_by_form(
    request: AnyRequest, context: TenantContext, tenants: Tenants, claims: Claims, movement_id: UUID
) -> Response[Any]:
    form = await request.form()
    draft = ReversalDraft(str(form.get("reason", "")).strip(), str(form.get("key", "")) or str(uuid4()))
    try:
        reversal = msgspec.convert({"reason": draft.reason or None}, ReversalIn)
    except msgspec.ValidationError:
        draft.reason_problem = "At most 64 characters, nothing invisible."
        return await _page(request, context, tenants, claims, movement_id, draft, HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        async with tenants.transaction(context) as session:
            # The same operation as the API's, so that a key means the same on both ways.
            key = request_key(draft.key, f"POST /movements/{movement_id}/reversal", reversal)
            posted, _ = await reverse_movement(session, movement_id, reversal, actor=claims.sub, key=key)
    except (ConflictError, UnavailableError) as error:
        draft.problem = error.detail
        if isinstance(error, IdempotencyConflictError):
            draft.key = str(uuid4())
        return await _page(request, context, tenants, claims, movement_id, draft, error.status)
    return Redirect(f"/movements/{posted.id}", status_code=303)


async def _page(
    request: AnyRequest,
    context: TenantContext,
    tenants: Tenants,
    claims: Claims,
    movement_id: UUID,
    draft: ReversalDraft,
    status: int = 200,
) -> Response[str]:
    async with tenants.reading(context) as session:
        found = await movement_by_id(session, movement_id)
        custom = labelled(session, Entity.MOVEMENT, found.custom)
        reversal_id = await reversal_of(session, movement_id)
        products = await product_ids(session, {line.sku for line in found.lines})
    return PAGES.page(
        "inventory/one_movement.html",
        request,
        frame_for(context, claims),
        status,
        posted=found,
        custom=custom,
        products=products,
        reversal_id=reversal_id,
        may_reverse=Permission.MOVEMENTS_WRITE in claims.permissions and not why_read_only(context),
        read_only=why_read_only(context),
        **msgspec.structs.asdict(draft),
    )
