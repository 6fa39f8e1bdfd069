"""The staff's pages of moves: the list, a plan, one move live, and what can be asked of it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.response import Redirect, ServerSentEvent
from sqlalchemy.ext.asyncio import AsyncSession

from strata.console.live import live_parts
from strata.console.surroundings import PAGES, frame_for
from strata.console.tenants import actor
from strata.identity.permissions import Permission, requires
from strata.migrator.desk import MOST_RETENTION_S, Along, Desk, Order, Plan
from strata.migrator.losses import can_be_accepted, neither_is_there
from strata.migrator.moves import Move, MoveEvent
from strata.migrator.phases import AT_THE_FLIP, BEFORE_THE_FLIP, CANCELLABLE, Phase, Wish
from strata.migrator.status import status_of
from strata.platform.errors import ConflictError, InvalidInputError, StrataError
from strata.platform.tokens import Claims
from strata.platform.web.pages import wants_part
from strata.tenancy.catalog.registry import Registry
from strata.tenancy.model import CellKind, Tier

AnyRequest = Request[Any, Any, Any]

_PER_PAGE = 50
_EVENTS_SHOWN = 200
_MOST_HOURS = MOST_RETENTION_S // 3600
_WORDS = {
    Wish.CUT_OVER: "Cut over",
    Wish.ROLL_BACK: "Roll back",
    Wish.COMPLETE: "Complete",
    Wish.CANCEL: "Cancel move",
    Wish.RETRY: "Retry",
    Wish.ACCEPT_LOSS: "Accept the loss",
}


class Draft(msgspec.Struct):
    """What the form says, as it was typed."""

    tenant: str = ""
    to: str = ""
    cell: str = ""
    server: str = ""
    hold: str = ""
    hours: str = "48"
    leaving: str = ""
    """Where the tenant was when the plan was shown."""

    @property
    def order(self) -> Order:
        if self.to not in set(Tier):
            message = "Choose the isolation that the tenant gets."
            raise InvalidInputError(message)
        if not self.hours.isdigit() or int(self.hours) > _MOST_HOURS:
            message = f"«{self.hours}» are no hours: write a whole number, {_MOST_HOURS} at most."
            raise InvalidInputError(message)
        return Order(
            self.tenant.strip(),
            Tier(self.to),
            cell=self.cell or None,
            server=self.server or None,
            hold=bool(self.hold),
            retention_s=int(self.hours) * 3600,
        )


class StaleFormError(ConflictError):
    code = "stale-form"
    title = "Things have changed since the page was made"


@get("/moves", opt=requires(Permission.STAFF_MOVES_READ), include_in_schema=False)
async def moves(
    request: AnyRequest, desk: Desk, claims: Claims, tenant: str = "", unfinished: str = "", before: str = ""
) -> Response[str]:
    found = await desk.moves.newest(
        slug=tenant.strip() or None,
        unfinished=bool(unfinished),
        before=_id_or_none(before),
        limit=_PER_PAGE + 1,
    )
    return PAGES.page(
        "console/move_rows.html" if wants_part(request) else "console/moves.html",
        request,
        frame_for(claims),
        moves=[status_of(move) for move in found[:_PER_PAGE]],
        more=len(found) > _PER_PAGE,
        tenant=tenant,
        unfinished=unfinished,
        may_start=Permission.STAFF_MOVES_WRITE in claims.permissions,
    )


@get("/moves/new", opt=requires(Permission.STAFF_MOVES_READ), include_in_schema=False)
async def new_move(request: AnyRequest, desk: Desk, registry: Registry, claims: Claims) -> Response[str]:
    """The form and, once it says enough, what the move would do and what stands against it."""
    draft = msgspec.convert(
        {name: request.query_params.get(name, "") for name in ("tenant", "to", "cell", "server", "hold")}, Draft
    )
    draft.hours = request.query_params.get("hours", draft.hours)
    return await _draft_page(request, draft, desk, registry, claims)


@post("/moves", opt=requires(Permission.STAFF_MOVES_WRITE), include_in_schema=False, status_code=303)
async def start_move(request: AnyRequest, desk: Desk, registry: Registry, claims: Claims) -> Response[Any]:
    form = await request.form()
    draft = msgspec.convert({name: str(form.get(name, "")) for name in Draft.__struct_fields__}, Draft)
    try:
        started = await desk.start(draft.order, actor(claims), along=_as_planned(draft))
    except StrataError as error:
        return await _draft_page(request, draft, desk, registry, claims, refusal=error)
    return Redirect(f"/moves/{started.id}", status_code=303)


@get("/moves/{move_id:uuid}", opt=requires(Permission.STAFF_MOVES_READ), include_in_schema=False)
async def move(request: AnyRequest, move_id: UUID, desk: Desk, claims: Claims) -> Response[str]:
    return await _move_page(request, move_id, desk, claims)


@get("/moves/{move_id:uuid}/live", opt=requires(Permission.STAFF_MOVES_READ), include_in_schema=False)
async def move_live(request: AnyRequest, move_id: UUID, desk: Desk, claims: Claims) -> ServerSentEvent:
    await desk.moves.get(move_id)
    return live_parts(
        request,
        claims,
        ("move_figures", "move_acts", "move_events"),
        lambda: _values(move_id, desk, claims),
        lambda values: values["move"].finished,
    )


@post(
    "/moves/{move_id:uuid}/{wish:str}",
    opt=requires(Permission.STAFF_MOVES_WRITE),
    include_in_schema=False,
    status_code=303,
)
async def ask_move(request: AnyRequest, move_id: UUID, wish: Wish, desk: Desk, claims: Claims) -> Response[Any]:
    form = await request.form()
    try:
        seen = await desk.moves.get(move_id)
        if str(form.get("seen", "")) != seen.phase:
            message = f"The move has gone on meanwhile, it is {_said(seen.phase)} now: see whether you still want to."
            raise StaleFormError(message)
        await desk.ask(move_id, wish, actor(claims))
    except ConflictError as error:
        return await _move_page(request, move_id, desk, claims, refusal=error)
    return Redirect(f"/moves/{move_id}", status_code=303)


def _as_planned(draft: Draft) -> Along:
    async def compare(_: AsyncSession, move: Move) -> None:
        if draft.leaving != str(move.source):
            message = f"«{move.slug}» is not where it was when the plan was made: look at the new plan first."
            raise StaleFormError(message)

    return compare


async def _draft_page(
    request: AnyRequest,
    draft: Draft,
    desk: Desk,
    registry: Registry,
    claims: Claims,
    refusal: StrataError | None = None,
) -> Response[str]:
    plan: Plan | None = None
    if draft.tenant and draft.to:
        try:
            plan = await desk.plan(draft.order)
        except StrataError as error:
            refusal = refusal or error
    return PAGES.page(
        "console/new_move.html",
        request,
        frame_for(claims),
        refusal.status if refusal is not None else 200,
        draft=draft,
        plan=plan,
        refusal=refusal,
        tiers=list(Tier),
        cells=[cell.name for cell in await registry.cells() if cell.kind is CellKind.SHARED],
        servers=[server.name for server in await registry.servers()],
        may_start=Permission.STAFF_MOVES_WRITE in claims.permissions,
    )


async def _move_page(
    request: AnyRequest, move_id: UUID, desk: Desk, claims: Claims, refusal: StrataError | None = None
) -> Response[str]:
    return PAGES.page(
        "console/move.html",
        request,
        frame_for(claims),
        refusal.status if refusal is not None else 200,
        refusal=refusal,
        **await _values(move_id, desk, claims),
    )


async def _values(move_id: UUID, desk: Desk, claims: Claims) -> dict[str, Any]:
    found = await desk.moves.get(move_id)
    may_ask = Permission.STAFF_MOVES_WRITE in claims.permissions
    events = await desk.moves.events(move_id) if Permission.STAFF_AUDIT_READ in claims.permissions else []
    return {
        "move": found,
        "shown": status_of(found),
        "phase": _said(found.phase),
        "wishes": [(wish, _WORDS[wish]) for wish in _open_wishes(found)] if may_ask else [],
        "loss": await desk.loss(found),
        "events": [(event, _short(event)) for event in reversed(events[-_EVENTS_SHOWN:])],
    }


def _open_wishes(found: Move) -> list[Wish]:
    """What the desk would not refuse now, the likeliest first."""
    failed_before = found.phase is Phase.FAILED and found.failed_in in BEFORE_THE_FLIP
    return [
        wish
        for wish, is_open in (
            (Wish.RETRY, found.phase is Phase.FAILED),
            (Wish.CUT_OVER, found.hold and found.phase in CANCELLABLE),
            (Wish.ROLL_BACK, found.phase is Phase.RETAINING),
            (Wish.COMPLETE, found.phase is Phase.RETAINING),
            (Wish.CANCEL, found.phase in CANCELLABLE or failed_before or neither_is_there(found)),
            (Wish.ACCEPT_LOSS, can_be_accepted(found)),
        )
        if is_open and found.phase not in AT_THE_FLIP and found.wish is not wish
    ]


def _said(phase: Phase) -> str:
    return phase.value.replace("_", " ")


def _short(event: MoveEvent) -> str:
    simple = {name: value for name, value in event.detail.items() if not isinstance(value, (dict, list))}
    return ", ".join(f"{name} {value}" for name, value in simple.items())


def _id_or_none(text: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


ROUTES: list[Any] = [moves, new_move, start_move, move, move_live, ask_move]
