from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, Response, get, post
from litestar.openapi.spec import Example
from litestar.params import Body

from strata.identity.permissions import Permission, requires
from strata.inventory.approvals.requests import RequestOut, post_or_ask
from strata.inventory.custom.values import PREFIX, wanted_values
from strata.inventory.idempotency import REPLAYED, IdempotencyKeyHeader, request_key
from strata.inventory.movements import posting, repository
from strata.inventory.movements.models import MovementKind
from strata.inventory.movements.outcomes import PostedMovement
from strata.inventory.movements.schemas import MovementFilter, MovementIn, MovementOut, ReversalIn, check_lines
from strata.inventory.request_parameters import (
    API_PREFIX,
    CursorParameter,
    FieldsParameter,
    IfNoneMatchHeader,
    LimitParameter,
    TextParameter,
)
from strata.inventory.resources import Resource
from strata.platform.http.query import open_parameters
from strata.platform.paging import DEFAULT_LIMIT, Page, Paging
from strata.platform.tokens import Claims
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants

_RECEIVE = Example(
    summary="Receive two products",
    value={
        "kind": "receive",
        "reference": "PO-2026-0042",
        "lines": [
            {"sku": "MUG-RED-350", "bin": "HAM-A-01-1", "quantity": 48},
            {"sku": "MUG-BLUE-350", "bin": "HAM-A-01-2", "quantity": 24},
        ],
    },
)
_TRANSFER = Example(
    summary="Move stock to another bin",
    value={
        "kind": "transfer",
        "lines": [{"sku": "MUG-RED-350", "bin": "HAM-A-01-1", "to_bin": "HAM-B-02-1", "quantity": 12}],
    },
)
_REVERSAL = Example(summary="Why", value={"reason": "entered twice"})
_HEADS = Resource("movements", MovementOut)
_MOVEMENTS = Resource("movements", PostedMovement)


def _posted(movement: PostedMovement, *, replayed: bool) -> Response[PostedMovement]:
    headers = {"Location": f"{API_PREFIX}/movements/{movement.id}"}
    if replayed:
        headers |= REPLAYED
    return Response(movement, status_code=201, headers=headers)


def _asked(request: RequestOut, *, replayed: bool) -> Response[RequestOut]:
    headers = {"Location": f"{API_PREFIX}/movement-requests/{request.id}"}
    return Response(request, status_code=202, headers=headers | (REPLAYED if replayed else {}))


class MovementController(Controller):
    path = "/movements"
    tags = ("Movements",)

    @post("/", summary="Move stock", opt=requires(Permission.MOVEMENTS_WRITE))
    async def post_movement(
        self,
        context: TenantContext,
        tenants: Tenants,
        claims: Claims,
        data: Annotated[MovementIn, Body(examples=[_RECEIVE, _TRANSFER])],
        idempotency_key: IdempotencyKeyHeader = None,
    ) -> Response[PostedMovement] | Response[RequestOut]:
        """201 with the movement; 202 with a request where the organisation's rules want it approved first."""
        check_lines(data)
        key = request_key(idempotency_key, "POST /movements", data)
        async with tenants.transaction(context) as session:
            answer, replayed = await post_or_ask(session, data, actor=claims.sub, key=key)
        return (
            _asked(answer, replayed=replayed) if isinstance(answer, RequestOut) else _posted(answer, replayed=replayed)
        )

    @get(
        "/",
        summary="List movements, the newest first",
        opt=requires(Permission.MOVEMENTS_READ) | open_parameters(PREFIX),
    )
    async def list_movements(
        self,
        request: Request[Any, Any, Any],
        context: TenantContext,
        tenants: Tenants,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
        kind: MovementKind | None = None,
        reference: TextParameter = None,
        fields: FieldsParameter = None,
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[Page[MovementOut]]:
        """Also by values of custom fields: `custom.carrier=DHL`."""
        wanted = MovementFilter(kind=kind, reference=reference, custom=wanted_values(request))
        async with tenants.reading(context) as session:
            page = await repository.list_movements(session, Paging(limit, cursor, fields), wanted)
        return _HEADS.page(page, if_none_match)

    @get("/{movement_id:uuid}", summary="One movement with its lines", opt=requires(Permission.MOVEMENTS_READ))
    async def get_movement(
        self,
        context: TenantContext,
        tenants: Tenants,
        movement_id: UUID,
        fields: FieldsParameter = None,
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[PostedMovement]:
        async with tenants.reading(context) as session:
            movement = await repository.movement_by_id(session, movement_id)
        return _MOVEMENTS.read(movement, fields, if_none_match)

    @post("/{movement_id:uuid}/reversal", summary="Reverse a movement, once", opt=requires(Permission.MOVEMENTS_WRITE))
    async def reverse_movement(
        self,
        context: TenantContext,
        tenants: Tenants,
        claims: Claims,
        movement_id: UUID,
        data: Annotated[ReversalIn | None, Body(examples=[_REVERSAL])] = None,
        idempotency_key: IdempotencyKeyHeader = None,
    ) -> Response[PostedMovement]:
        reversal = data or ReversalIn()
        key = request_key(idempotency_key, f"POST /movements/{movement_id}/reversal", reversal)
        async with tenants.transaction(context) as session:
            movement, replayed = await posting.reverse_movement(
                session, movement_id, reversal, actor=claims.sub, key=key
            )
        return _posted(movement, replayed=replayed)
