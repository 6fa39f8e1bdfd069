"""Movements that wait: asked for, and then approved by somebody else, which posts them, or rejected."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import select

from strata.inventory.approvals.errors import (
    AlreadyDecidedError,
    ApprovalNeededError,
    OwnRequestError,
    RequestNotFoundError,
)
from strata.inventory.approvals.models import MovementRequest, RequestState
from strata.inventory.idempotency import RequestKey, once
from strata.inventory.movements.errors import LinesRefusedError
from strata.inventory.movements.models import MovementKind
from strata.inventory.movements.outcomes import PostedMovement
from strata.inventory.movements.posting import post_movement
from strata.inventory.movements.rules import may_wait, needs_approval, rule_errors
from strata.inventory.movements.schemas import MovementIn
from strata.platform.ids import new_id
from strata.platform.listing import Listing
from strata.platform.paging import Keyset, Page, Paging
from strata.tenancy.audit import record
from strata.tenancy.entitlements.asking import Feature, need
from strata.tenancy.session import TenantReadSession, TenantSession


class RequestOut(msgspec.Struct, frozen=True):
    id: UUID
    state: str
    document: dict[str, Any]
    reason: str
    requested_by: str
    requested_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    note: str | None
    movement_id: UUID | None


_LIST = Listing(
    RequestOut,
    select(*(getattr(MovementRequest, name) for name in RequestOut.__struct_fields__)),
    Keyset(MovementRequest.id, descending=True),
)


async def post_or_ask(
    session: TenantSession, movement: MovementIn, *, actor: str, key: RequestKey | None
) -> tuple[PostedMovement | RequestOut, bool]:
    """Post it, or, where the tenant's rules say so, have it wait. And whether the answer is one kept under the key."""
    if movement.kind is MovementKind.TRANSFER:
        need(session.info["context"], Feature.TRANSFERS)
    why = needs_approval(session, movement)
    if why is None:
        return await post_movement(session, movement, actor=actor, key=key)
    if not may_wait(session):
        raise ApprovalNeededError(why)
    if errors := list(rule_errors(session, movement)):
        raise LinesRefusedError(errors)
    # A name of its own for the answer of this: posting keeps another kind under the client's.
    asked = (
        None if key is None else RequestKey(f"asked-{hashlib.sha256(key.key.encode()).hexdigest()}", key.request_hash)
    )
    return await once(session, asked, RequestOut, lambda: _ask(session, movement, why, actor))


async def _ask(session: TenantSession, movement: MovementIn, why: str, actor: str) -> RequestOut:
    row = MovementRequest(id=new_id(), document=msgspec.to_builtins(movement), reason=why, requested_by=actor)
    session.add(row)
    await session.flush()
    record(session, "movement.ask", str(row.id), reason=why)
    return await request_by_id(session, row.id)


async def request_by_id(session: TenantReadSession, request_id: UUID) -> RequestOut:
    found = await _LIST.one(session, MovementRequest.id == request_id)
    if found is None:
        raise RequestNotFoundError(request_id)
    return found


async def list_requests(session: TenantReadSession, paging: Paging, state: RequestState | None) -> Page[RequestOut]:
    """The newest first."""
    return await _LIST.page(session, paging, *([] if state is None else [MovementRequest.state == state.value]))


async def approve(session: TenantSession, request_id: UUID, note: str | None = None, *, actor: str) -> RequestOut:
    """Post it, in the name of whoever asked. What the movement is refused for leaves the request waiting."""
    row = await _pending(session, request_id)
    if row.requested_by == actor:
        raise OwnRequestError
    movement = msgspec.convert(row.document, MovementIn)
    posted, _ = await post_movement(session, movement, actor=row.requested_by, approved=True)
    row.movement_id, row.note = posted.id, note
    return await _decided(session, row, RequestState.APPROVED, actor)


async def reject(session: TenantSession, request_id: UUID, note: str | None, *, actor: str) -> RequestOut:
    """Also by whoever asked, who may think better of it."""
    row = await _pending(session, request_id)
    row.note = note
    return await _decided(session, row, RequestState.REJECTED, actor)


async def _pending(session: TenantSession, request_id: UUID) -> MovementRequest:
    row = await session.scalar(select(MovementRequest).where(MovementRequest.id == request_id).with_for_update())
    if row is None:
        raise RequestNotFoundError(request_id)
    if row.state != RequestState.PENDING:
        raise AlreadyDecidedError(request_id, row.state)
    return row


async def _decided(session: TenantSession, row: MovementRequest, state: RequestState, actor: str) -> RequestOut:
    row.state, row.decided_by, row.decided_at = state, actor, datetime.now(UTC)
    await session.flush()
    verb = "approve" if state is RequestState.APPROVED else "reject"
    record(
        session,
        f"movement.{verb}",
        str(row.id),
        requested_by=row.requested_by,
        movement_id=row.movement_id,
        note=row.note,
    )
    return await request_by_id(session, row.id)
