"""Moves, for the staff's programs: what `strata migrate` does, over HTTP, on the console's host alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, get, post
from litestar.params import QueryParameter
from litestar.response import ServerSentEvent, ServerSentEventMessage

from strata.console.tenants import actor
from strata.identity.permissions import Permission, requires
from strata.migrator.desk import MOST_RETENTION_S, RETENTION_S, Desk, Order, Plan
from strata.migrator.losses import Loss
from strata.migrator.moves import Move, MoveEvent
from strata.migrator.phases import Phase, Wish
from strata.migrator.status import MoveStatus, status_of
from strata.platform.paging import DEFAULT_LIMIT, MAX_LIMIT, Page, Paging, decode_cursor, encode_cursor
from strata.platform.tokens import Claims
from strata.tenancy.model import Tier

_LOOK_EVERY_S = 0.25
_ALIVE_EVERY_S = 10.0

Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)]


class MoveToStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tenant: str
    to: Tier
    cell: str | None = None
    server: str | None = None
    hold: bool = False
    retention_s: Annotated[int, msgspec.Meta(ge=0, le=MOST_RETENTION_S)] = RETENTION_S

    @property
    def order(self) -> Order:
        return Order(self.tenant, self.to, self.cell, self.server, hold=self.hold, retention_s=self.retention_s)


class MigrationsApi(Controller):
    path = "/staff/v1/migrations"
    tags = ("Staff",)
    # Tenants read the application's description on their own hosts; nothing of this concerns them.
    include_in_schema = False

    @get(opt=requires(Permission.STAFF_MOVES_READ), summary="Moves, newest first")
    async def list_moves(
        self,
        desk: Desk,
        limit: Limit = DEFAULT_LIMIT,
        cursor: str | None = None,
        tenant: str | None = None,
        unfinished: bool = False,
    ) -> Page[MoveStatus]:
        paging = Paging(limit, cursor)
        before = None if paging.cursor is None else UUID(str(decode_cursor(paging.cursor, [str])[0]))
        found = await desk.moves.newest(slug=tenant, unfinished=unfinished, before=before, limit=paging.limit + 1)
        shown = [status_of(move) for move in found[: paging.limit]]
        return Page(shown, encode_cursor([str(shown[-1].id)]) if len(found) > paging.limit else None)

    @post(
        "/plan",
        opt=requires(Permission.STAFF_MOVES_READ, changes_nothing=True),
        summary="What a move would do, and what stands against it",
        status_code=200,
    )
    async def plan(self, data: MoveToStart, desk: Desk) -> Plan:
        return await desk.plan(data.order)

    @post(opt=requires(Permission.STAFF_MOVES_WRITE), summary="Start a move; a worker runs it", status_code=202)
    async def start(self, data: MoveToStart, desk: Desk, claims: Claims) -> MoveStatus:
        return status_of(await desk.start(data.order, actor(claims)))

    @get("/{move_id:uuid}", opt=requires(Permission.STAFF_MOVES_READ), summary="One move")
    async def get_move(self, move_id: UUID, desk: Desk) -> MoveStatus:
        return status_of(await desk.moves.get(move_id))

    @get(
        "/{move_id:uuid}/audit", opt=requires(Permission.STAFF_AUDIT_READ), summary="Everything that happened to a move"
    )
    async def get_audit(self, move_id: UUID, desk: Desk, after: int = 0) -> dict[str, list[MoveEvent]]:
        await desk.moves.get(move_id)
        return {"items": await desk.moves.events(move_id, after=after)}

    @get(
        "/{move_id:uuid}/loss",
        opt=requires(Permission.STAFF_MOVES_READ),
        summary="What accept-loss would give up; null: nothing is lost",
    )
    async def get_loss(self, move_id: UUID, desk: Desk) -> Loss | None:
        return await desk.loss(await desk.moves.get(move_id))

    @get("/{move_id:uuid}/events", opt=requires(Permission.STAFF_MOVES_READ), summary="A move, live (SSE)")
    async def follow(self, move_id: UUID, desk: Desk, after: int = 0) -> ServerSentEvent:
        """`move`: something happened, its id is the event's; `status`: the numbers changed. Ends when the move has ended."""
        await desk.moves.get(move_id)
        return ServerSentEvent(_told(desk, move_id, after))

    @post(
        "/{move_id:uuid}/{wish:str}",
        opt=requires(Permission.STAFF_MOVES_WRITE),
        summary="cutover, rollback, complete, cancel, retry, accept-loss",
        status_code=202,
    )
    async def ask(self, move_id: UUID, wish: Wish, desk: Desk, claims: Claims) -> MoveStatus:
        return status_of(await desk.ask(move_id, wish, actor(claims)))


async def _told(desk: Desk, move_id: UUID, after: int) -> AsyncIterator[ServerSentEventMessage]:
    last, quiet_s = b"", 0.0
    while True:
        move = await desk.moves.get(move_id)
        for event in await desk.moves.events(move_id, after=after):
            after, quiet_s = event.id, 0.0
            yield ServerSentEventMessage(data=msgspec.json.encode(event).decode(), event="move", id=event.id)
        if (line := msgspec.json.encode(status_of(move))) != last:
            last, quiet_s = line, 0.0
            yield ServerSentEventMessage(data=line.decode(), event="status")
        if _rests(move):
            return
        if quiet_s >= _ALIVE_EVERY_S:
            # Proxies cut connections on which nothing is said.
            quiet_s = 0.0
            yield ServerSentEventMessage(comment="alive")
        await asyncio.sleep(_LOOK_EVERY_S)
        quiet_s += _LOOK_EVERY_S


def _rests(move: Move) -> bool:
    return move.finished or (move.phase is Phase.FAILED and move.wish is None)


API: list[Any] = [MigrationsApi]
