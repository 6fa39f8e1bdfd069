"""The staff's pages of waves: the list, who would be in one, one wave live, and what can be asked of it."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.response import Redirect, ServerSentEvent

from strata.console.live import live_parts
from strata.console.move_pages import StaleFormError
from strata.console.surroundings import PAGES, frame_for
from strata.console.tenants import actor
from strata.console.waves import WaveToStart
from strata.identity.permissions import Permission, requires
from strata.migrator.waves.desk import MAX_FAILURES, PARALLEL, Candidate, WaveDesk, WaveWish
from strata.migrator.waves.models import ENDED, WaveState
from strata.migrator.waves.store import Outcome, Wave
from strata.platform.errors import ConflictError, InvalidInputError, StrataError
from strata.platform.tokens import Claims
from strata.tenancy.catalog.registry import Registry
from strata.tenancy.model import CellKind, Tier
from strata.tenancy.plans import plans

AnyRequest = Request[Any, Any, Any]

_LISTED = 100
_MEMBERS_SHOWN = 500
_WORDS = {
    WaveWish.RESUME: "Resume",
    WaveWish.RETRY: "Retry the failed ones",
    WaveWish.PAUSE: "Pause",
    WaveWish.CANCEL: "Cancel wave",
}
_FIELDS = (
    "to",
    "whose",
    "slugs",
    "plan",
    "from_cell",
    "cell",
    "server",
    "parallel",
    "max_failures",
    "window",
    "time_zone",
)


class WaveDraft(msgspec.Struct):
    """What the form says, as it was typed."""

    to: str = ""
    whose: str = "plan"
    slugs: str = ""
    plan: str = ""
    from_cell: str = ""
    cell: str = ""
    server: str = ""
    parallel: str = str(PARALLEL)
    max_failures: str = str(MAX_FAILURES)
    window: str = ""
    time_zone: str = "UTC"

    @property
    def wanted(self) -> WaveToStart:
        written = {
            "to": self.to,
            "tenants": re.split(r"[\s,;]+", self.slugs.strip())
            if self.whose == "tenants" and self.slugs.strip()
            else [],
            "plan": self.plan if self.whose == "plan" else None,
            "from_cell": self.from_cell if self.whose == "cell" else None,
            "cell": self.cell or None,
            "server": self.server or None,
            "parallel": self.parallel,
            "max_failures": self.max_failures,
            "window": self.window.strip() or None,
            "time_zone": self.time_zone.strip(),
        }
        try:
            return msgspec.convert(written, WaveToStart, strict=False)
        except msgspec.ValidationError as error:
            message = f"The form says what no wave can be: {error}."
            raise InvalidInputError(message) from None


@get("/waves", opt=requires(Permission.STAFF_MOVES_READ), include_in_schema=False)
async def waves_list(request: AnyRequest, waves: WaveDesk, claims: Claims) -> Response[str]:
    return PAGES.page(
        "console/waves.html",
        request,
        frame_for(claims),
        waves=await waves.waves.newest(limit=_LISTED),
        may_start=Permission.STAFF_MOVES_WRITE in claims.permissions,
    )


@get("/waves/new", opt=requires(Permission.STAFF_MOVES_WRITE), include_in_schema=False)
async def new_wave(request: AnyRequest, registry: Registry, claims: Claims) -> Response[str]:
    return await _draft_page(request, WaveDraft(), registry, claims)


@post("/waves", opt=requires(Permission.STAFF_MOVES_WRITE), include_in_schema=False, status_code=303)
async def start_wave(request: AnyRequest, waves: WaveDesk, registry: Registry, claims: Claims) -> Response[Any]:
    """`act` is look or start: a list of tenants may be too long for an address."""
    form = await request.form()
    draft = msgspec.convert({name: str(form.get(name, "")) for name in _FIELDS}, WaveDraft)
    try:
        order = draft.wanted.order
        if form.get("act") != "start":
            return await _draft_page(request, draft, registry, claims, candidates=await waves.gather(order))
        started = await waves.start(order, actor(claims))
    except StrataError as error:
        return await _draft_page(request, draft, registry, claims, refusal=error)
    return Redirect(f"/waves/{started.id}", status_code=303)


@get("/waves/{wave_id:uuid}", opt=requires(Permission.STAFF_MOVES_READ), include_in_schema=False)
async def wave(request: AnyRequest, wave_id: UUID, waves: WaveDesk, claims: Claims) -> Response[str]:
    return await _wave_page(request, wave_id, waves, claims)


@get("/waves/{wave_id:uuid}/live", opt=requires(Permission.STAFF_MOVES_READ), include_in_schema=False)
async def wave_live(request: AnyRequest, wave_id: UUID, waves: WaveDesk, claims: Claims) -> ServerSentEvent:
    await waves.waves.get(wave_id)
    return live_parts(
        request,
        claims,
        ("wave_figures", "wave_acts", "wave_members"),
        lambda: _values(wave_id, waves, claims),
        lambda values: values["wave"].rests and values["wave"].state in ENDED,
    )


@post(
    "/waves/{wave_id:uuid}/{wish:str}",
    opt=requires(Permission.STAFF_MOVES_WRITE),
    include_in_schema=False,
    status_code=303,
)
async def ask_wave(
    request: AnyRequest, wave_id: UUID, wish: WaveWish, waves: WaveDesk, claims: Claims
) -> Response[Any]:
    form = await request.form()
    try:
        seen = await waves.waves.get(wave_id)
        if str(form.get("seen", "")) != seen.state:
            message = f"The wave is {seen.state.value} by now: see whether you still want to."
            raise StaleFormError(message)
        await waves.ask(wave_id, wish, actor(claims))
    except ConflictError as error:
        return await _wave_page(request, wave_id, waves, claims, refusal=error)
    return Redirect(f"/waves/{wave_id}", status_code=303)


async def _draft_page(
    request: AnyRequest,
    draft: WaveDraft,
    registry: Registry,
    claims: Claims,
    *,
    candidates: list[Candidate] | None = None,
    refusal: StrataError | None = None,
) -> Response[str]:
    return PAGES.page(
        "console/new_wave.html",
        request,
        frame_for(claims),
        refusal.status if refusal is not None else 200,
        draft=draft,
        candidates=candidates,
        shown=_MEMBERS_SHOWN,
        refusal=refusal,
        tiers=list(Tier),
        plans=list(plans()),
        cells=[cell.name for cell in await registry.cells() if cell.kind is CellKind.SHARED],
        servers=[server.name for server in await registry.servers()],
    )


async def _wave_page(
    request: AnyRequest, wave_id: UUID, waves: WaveDesk, claims: Claims, refusal: StrataError | None = None
) -> Response[str]:
    return PAGES.page(
        "console/wave.html",
        request,
        frame_for(claims),
        refusal.status if refusal is not None else 200,
        refusal=refusal,
        **await _values(wave_id, waves, claims),
    )


async def _values(wave_id: UUID, waves: WaveDesk, claims: Claims) -> dict[str, Any]:
    found = await waves.waves.get(wave_id)
    may_ask = Permission.STAFF_MOVES_WRITE in claims.permissions
    members = await waves.waves.members(wave_id, limit=_MEMBERS_SHOWN, urgent_first=True)
    return {
        "wave": found,
        "wishes": [(wish, _WORDS[wish]) for wish in _open_wishes(found)] if may_ask else [],
        "members": members,
        "hidden": max(found.tenants - len(members), 0),
    }


def _open_wishes(found: Wave) -> list[WaveWish]:
    failed = bool(found.counts[Outcome.FAILED])
    return {
        WaveState.RUNNING: [WaveWish.PAUSE, WaveWish.CANCEL],
        WaveState.PAUSED: [WaveWish.RESUME, WaveWish.CANCEL],
        WaveState.STOPPED: [WaveWish.RESUME, WaveWish.RETRY, WaveWish.CANCEL],
        WaveState.FINISHED: [WaveWish.RETRY] if failed else [],
        WaveState.CANCELLED: [],
    }[found.state]


ROUTES: list[Any] = [waves_list, new_wave, start_wave, wave, wave_live, ask_wave]
