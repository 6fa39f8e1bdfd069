"""Posting a movement by hand or by scanner. What is refused comes back as it was typed, with the reason beside it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.response import Redirect

from strata.identity.permissions import Permission, requires
from strata.inventory.approvals.requests import RequestOut, post_or_ask
from strata.inventory.custom.values import Entity, defined
from strata.inventory.idempotency import IdempotencyConflictError, request_key
from strata.inventory.locations.repository import list_bins
from strata.inventory.locations.schemas import BinFilter
from strata.inventory.movements.outcomes import PostedMovement
from strata.inventory.movements.repository import movement_by_id
from strata.inventory.movements.schemas import MovementIn, check_lines
from strata.inventory.pages.approvals import ADDRESS as APPROVALS
from strata.inventory.pages.movement_draft import LineDraft, MovementDraft, draft_from, kind_named, kinds_for
from strata.inventory.pages.scanned_codes import product_ids, skus_by_barcode
from strata.inventory.pages.surroundings import PAGES, frame_for, why_read_only
from strata.inventory.products.repository import list_products
from strata.inventory.products.schemas import ProductFilter
from strata.inventory.request_parameters import SearchParameter, TextParameter
from strata.inventory.settings import rules_of
from strata.platform.errors import ConflictError, InvalidInputError, UnavailableError
from strata.platform.paging import Paging
from strata.platform.tokens import Claims
from strata.platform.web.pages import wants_part
from strata.tenancy.context import TenantContext
from strata.tenancy.entitlements.asking import FeatureMissingError
from strata.tenancy.session import Tenants

FORM = "/movements/new"
_SUGGESTIONS = 20

AnyRequest = Request[Any, Any, Any]


@get(FORM, opt=requires(Permission.MOVEMENTS_WRITE), include_in_schema=False)
async def movement_form(
    request: AnyRequest,
    context: TenantContext,
    tenants: Tenants,
    claims: Claims,
    kind: str = "",
    sku: TextParameter = None,
    bin: TextParameter = None,  # noqa: A002 - the field's name in the form and the API
    posted: UUID | None = None,
) -> Response[str]:
    """An empty form, or one begun from a product's page; above it, what was `posted` before."""
    draft = MovementDraft(kind_named(kind), [LineDraft(sku=sku or "", bin=bin or "")])
    return await _form(request, context, tenants, claims, draft, posted=posted)


@post(FORM, opt=requires(Permission.MOVEMENTS_WRITE), include_in_schema=False, status_code=303)
async def post_movement_form(
    request: AnyRequest, context: TenantContext, tenants: Tenants, claims: Claims
) -> Response[Any]:
    form = await request.form()
    draft = draft_from(form)
    if form.get("action") == "add-line":
        draft.add_line()
        return await _form(request, context, tenants, claims, draft)
    async with tenants.reading(context) as session:
        sku_of = await skus_by_barcode(session, {line.sku for line in draft.lines if line.sku})
        fields = defined(session, Entity.MOVEMENT)
    movement = draft.checked(sku_of, fields)
    if movement is None:
        return await _form(request, context, tenants, claims, draft, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        answer = await _post(context, tenants, claims, movement, draft.key)
    except IdempotencyConflictError:
        # The form was posted, changed after going back, and sent again. Whether that is meant, only a person can say.
        draft.begin_anew()
        return await _form(request, context, tenants, claims, draft, status=HTTPStatus.CONFLICT)
    except (ConflictError, FeatureMissingError, InvalidInputError, UnavailableError) as error:
        # The key stays: whatever became of the first try, the same form takes effect once.
        draft.take_refusal(error)
        return await _form(request, context, tenants, claims, draft, status=error.status)
    if isinstance(answer, RequestOut):
        return _waiting(request, answer)
    return Redirect(f"{FORM}?kind={movement.kind}&posted={answer.id}", status_code=303)


@get("/movements/suggestions/products", opt=requires(Permission.MOVEMENTS_WRITE), include_in_schema=False)
async def suggest_products(
    request: AnyRequest, context: TenantContext, tenants: Tenants, claims: Claims, sku: SearchParameter = None
) -> Response[str]:
    async with tenants.reading(context) as session:
        found = await list_products(session, Paging(_SUGGESTIONS), ProductFilter(q=sku or None, active=True))
    options = [(product.sku, product.name) for product in found.items]
    return PAGES.page("inventory/options.html", request, frame_for(context, claims), options=options)


@get("/movements/suggestions/bins", opt=requires(Permission.MOVEMENTS_WRITE), include_in_schema=False)
async def suggest_bins(
    request: AnyRequest,
    context: TenantContext,
    tenants: Tenants,
    claims: Claims,
    bin: SearchParameter = None,  # noqa: A002 - as above
    to_bin: SearchParameter = None,
) -> Response[str]:
    async with tenants.reading(context) as session:
        found = await list_bins(session, Paging(_SUGGESTIONS), BinFilter(q=bin or to_bin or None, active=True))
    options = [(each.code, f"{each.warehouse} · {each.zone}") for each in found.items]
    return PAGES.page("inventory/options.html", request, frame_for(context, claims), options=options)


def _waiting(request: AnyRequest, asked: RequestOut) -> Response[Any]:
    """To the page of what waits. htmx would put what it is redirected to in the form's place, so it is told to go there."""
    address = f"{APPROVALS}?asked={asked.id}"
    if wants_part(request):
        return Response("", status_code=200, headers={"HX-Redirect": address})
    return Redirect(address, status_code=303)


async def _post(
    context: TenantContext, tenants: Tenants, claims: Claims, movement: MovementIn, key: str
) -> PostedMovement | RequestOut:
    check_lines(movement)
    async with tenants.transaction(context) as session:
        # The same operation as the API's, so that a key means the same on both ways.
        answer, _ = await post_or_ask(
            session, movement, actor=claims.sub, key=request_key(key, "POST /movements", movement)
        )
    return answer


async def _form(
    request: AnyRequest,
    context: TenantContext,
    tenants: Tenants,
    claims: Claims,
    draft: MovementDraft,
    *,
    posted: UUID | None = None,
    status: int = 200,
) -> Response[str]:
    movement, products = None, {}
    async with tenants.reading(context) as session:
        fields, reasons = defined(session, Entity.MOVEMENT), rules_of(session).adjustment_reasons
        if posted is not None:
            movement = await movement_by_id(session, posted)
            products = await product_ids(session, {line.sku for line in movement.lines})
    return PAGES.page(
        "inventory/movement_part.html" if wants_part(request) else "inventory/movement.html",
        request,
        frame_for(context, claims),
        status,
        draft=draft,
        kinds=kinds_for(context),
        fields=fields,
        reasons=reasons,
        posted=movement,
        products=products,
        read_only=why_read_only(context),
    )
