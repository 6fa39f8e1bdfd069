"""Noisy neighbours for the staff: what is found, what is advised, and carrying it out."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.response import Redirect

from strata.console.surroundings import PAGES, frame_for
from strata.console.tenants import actor
from strata.identity.errors import PermissionMissingError
from strata.identity.permissions import Permission, requires
from strata.migrator.desk import Desk, Order
from strata.platform.errors import ConflictError
from strata.platform.tokens import Claims
from strata.platform.web.charts import shown
from strata.tenancy.entitlements.desk import EntitlementDesk, NewGrant
from strata.tenancy.entitlements.grants import GrantKind
from strata.tenancy.model import Tier
from strata.tenancy.neighbours.book import Advice, Finding, Loaded, NeighbourBook, SlowStatement
from strata.tenancy.neighbours.tables import AdviceKind, AdviceState

_REASON = "a noisy neighbour, held back by advice"
_READS = requires(Permission.STAFF_TENANTS_READ)
_WRITES = requires(Permission.STAFF_MOVES_WRITE)


class Neighbourhood(msgspec.Struct, frozen=True):
    findings: list[Finding]
    advice: list[Advice]
    """What waits for a decision."""
    decided: list[Advice]
    loads: list[Loaded]
    slow_statements: list[SlowStatement]


class Done(msgspec.Struct, frozen=True):
    done: str


class NeedsAPersonError(ConflictError):
    code = "advice-needs-a-person"

    def __init__(self, advice: Advice) -> None:
        super().__init__(f"Nobody can do this by a command. {advice.why} When it is done, dismiss the advice.")


async def look(book: NeighbourBook) -> Neighbourhood:
    return Neighbourhood(
        await book.findings(),
        await book.advice(),
        await book.decided(),
        await book.loads(),
        await book.slow_statements(),
    )


async def carry_out(book: NeighbourBook, entitlements: EntitlementDesk, desk: Desk, advice_id: UUID, who: str) -> str:
    """Do what is advised; returns what has been done, in a sentence."""
    advice = await book.proposed(advice_id)
    if advice.kind is AdviceKind.THROTTLE:
        limit, amount = str(advice.action["limit"]), int(advice.action["amount"])
        await entitlements.grant(advice.tenant, NewGrant(GrantKind.LIMIT, limit, _REASON, amount), who)
        done = f"{advice.tenant} may send {amount} requests a minute from now on; revoke the grant to end it."
    elif advice.kind is AdviceKind.MOVE:
        move = await desk.start(Order(advice.tenant, Tier(advice.action["to"])), who)
        done = f"{advice.tenant} moves to {move.target.tier.value}: strata migrate watch {advice.tenant}."
    else:
        raise NeedsAPersonError(advice)
    await book.decide(advice, AdviceState.CARRIED_OUT, who)
    return done


async def _carried_out(
    book: NeighbourBook, entitlements: EntitlementDesk, desk: Desk, advice_id: UUID, claims: Claims
) -> str:
    """Whoever may move a tenant may not therefore limit it: that is a grant, and needs what grants need."""
    throttles = (await book.proposed(advice_id)).kind is AdviceKind.THROTTLE
    if throttles and Permission.STAFF_TENANTS_WRITE not in claims.permissions:
        raise PermissionMissingError(Permission.STAFF_TENANTS_WRITE)
    return await carry_out(book, entitlements, desk, advice_id, actor(claims))


async def dismiss(book: NeighbourBook, advice_id: UUID, who: str) -> None:
    await book.decide(await book.proposed(advice_id), AdviceState.DISMISSED, who)


@get("/staff/v1/neighbours", opt=_READS, summary="Who loads the cells", tags=["Staff"], include_in_schema=False)
async def get_neighbours(neighbours: NeighbourBook) -> Neighbourhood:
    return await look(neighbours)


@post(
    "/staff/v1/neighbours/advice/{advice_id:uuid}/carry-out",
    opt=_WRITES,
    summary="Do what is advised",
    tags=["Staff"],
    include_in_schema=False,
    status_code=200,
)
async def carry_out_advice(
    advice_id: UUID, neighbours: NeighbourBook, entitlements: EntitlementDesk, desk: Desk, claims: Claims
) -> Done:
    return Done(await _carried_out(neighbours, entitlements, desk, advice_id, claims))


@post(
    "/staff/v1/neighbours/advice/{advice_id:uuid}/dismiss",
    opt=_WRITES,
    summary="Leave it",
    tags=["Staff"],
    include_in_schema=False,
    status_code=200,
)
async def dismiss_advice(advice_id: UUID, neighbours: NeighbourBook, claims: Claims) -> Done:
    await dismiss(neighbours, advice_id, actor(claims))
    return Done("Dismissed.")


@get("/neighbours", opt=_READS, include_in_schema=False)
async def neighbours_page(request: Request[Any, Any, Any], neighbours: NeighbourBook, claims: Claims) -> Response[str]:
    return await _page(request, neighbours, claims)


@post("/neighbours/{advice_id:uuid}", opt=_WRITES, include_in_schema=False, status_code=303)
async def decide_by_form(
    request: Request[Any, Any, Any],
    advice_id: UUID,
    neighbours: NeighbourBook,
    entitlements: EntitlementDesk,
    desk: Desk,
    claims: Claims,
) -> Response[Any]:
    form = await request.form()
    try:
        if form.get("act") == "carry-out":
            await _carried_out(neighbours, entitlements, desk, advice_id, claims)
        else:
            await dismiss(neighbours, advice_id, actor(claims))
    except ConflictError as error:
        return await _page(request, neighbours, claims, problem=error.detail)
    return Redirect("/neighbours", status_code=303)


async def _page(
    request: Request[Any, Any, Any], book: NeighbourBook, claims: Claims, problem: str | None = None
) -> Response[str]:
    return PAGES.page(
        "console/neighbours.html",
        request,
        frame_for(claims),
        409 if problem else 200,
        seen=await look(book),
        may_decide=Permission.STAFF_MOVES_WRITE in claims.permissions,
        may_grant=Permission.STAFF_TENANTS_WRITE in claims.permissions,
        problem=problem,
        shown=shown,
    )


ROUTES = [get_neighbours, carry_out_advice, dismiss_advice, neighbours_page, decide_by_form]
