"""Waves of moves, for the staff's programs: what `strata migrate wave` and `waves` do, on the console's host alone."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, get, post

from strata.console.migrations import Limit
from strata.console.tenants import actor
from strata.identity.permissions import Permission, requires
from strata.migrator.desk import MOST_RETENTION_S
from strata.migrator.waves.desk import MAX_FAILURES, PARALLEL, Candidate, Pace, WaveDesk, WaveOrder, WaveWish
from strata.migrator.waves.store import Member, Wave
from strata.migrator.waves.window import Window
from strata.platform.paging import DEFAULT_LIMIT, Page, Paging, decode_cursor, encode_cursor
from strata.platform.tokens import Claims
from strata.tenancy.model import Tier

Slugs = Annotated[tuple[str, ...], msgspec.Meta(max_length=10_000)]


class WaveToStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exactly one of `tenants`, `plan` and `from_cell`."""

    to: Tier
    tenants: Slugs = ()
    plan: str | None = None
    from_cell: str | None = None
    cell: str | None = None
    server: str | None = None
    parallel: Annotated[int, msgspec.Meta(ge=1, le=64)] = PARALLEL
    max_failures: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = MAX_FAILURES
    window: str | None = None
    """Hours of a day in which moves may begin: 01:00-05:00."""
    time_zone: str = "UTC"
    retention_s: Annotated[int, msgspec.Meta(ge=0, le=MOST_RETENTION_S)] = 0

    @property
    def order(self) -> WaveOrder:
        window = None if self.window is None else Window.read(self.window, self.time_zone)
        return WaveOrder(
            self.to,
            tenants=self.tenants,
            plan=self.plan,
            from_cell=self.from_cell,
            cell=self.cell,
            server=self.server,
            pace=Pace(self.parallel, self.max_failures, window, self.retention_s),
        )


class WavesApi(Controller):
    path = "/staff/v1/waves"
    tags = ("Staff",)
    # Tenants read the application's description on their own hosts; nothing of this concerns them.
    include_in_schema = False

    @get(opt=requires(Permission.STAFF_MOVES_READ), summary="Waves, newest first")
    async def list_waves(
        self, waves: WaveDesk, limit: Limit = DEFAULT_LIMIT, cursor: str | None = None, unfinished: bool = False
    ) -> Page[Wave]:
        paging = Paging(limit, cursor)
        before = None if paging.cursor is None else UUID(str(decode_cursor(paging.cursor, [str])[0]))
        found = await waves.waves.newest(unfinished=unfinished, before=before, limit=paging.limit + 1)
        shown = found[: paging.limit]
        return Page(shown, encode_cursor([str(shown[-1].id)]) if len(found) > paging.limit else None)

    @post(
        "/plan",
        opt=requires(Permission.STAFF_MOVES_READ, changes_nothing=True),
        summary="Who would be in a wave",
        status_code=200,
    )
    async def plan(self, data: WaveToStart, waves: WaveDesk) -> dict[str, list[Candidate]]:
        return {"items": await waves.gather(data.order)}

    @post(opt=requires(Permission.STAFF_MOVES_WRITE), summary="Start a wave; workers run it", status_code=202)
    async def start(self, data: WaveToStart, waves: WaveDesk, claims: Claims) -> Wave:
        return await waves.start(data.order, actor(claims))

    @get("/{wave_id:uuid}", opt=requires(Permission.STAFF_MOVES_READ), summary="One wave")
    async def get_wave(self, wave_id: UUID, waves: WaveDesk) -> Wave:
        return await waves.waves.get(wave_id)

    @get(
        "/{wave_id:uuid}/tenants",
        opt=requires(Permission.STAFF_MOVES_READ),
        summary="How it went with each, and why not",
    )
    async def get_members(
        self, wave_id: UUID, waves: WaveDesk, limit: Limit = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[Member]:
        await waves.waves.get(wave_id)
        paging = Paging(limit, cursor)
        after = -1 if paging.cursor is None else int(str(decode_cursor(paging.cursor, [int])[0]))
        found = await waves.waves.members(wave_id, after=after, limit=paging.limit + 1)
        shown = found[: paging.limit]
        return Page(shown, encode_cursor([shown[-1].position]) if len(found) > paging.limit else None)

    @post(
        "/{wave_id:uuid}/{wish:str}",
        opt=requires(Permission.STAFF_MOVES_WRITE),
        summary="pause, resume, retry, cancel, cancel-all",
        status_code=202,
    )
    async def ask(self, wave_id: UUID, wish: WaveWish, waves: WaveDesk, claims: Claims) -> Wave:
        return await waves.ask(wave_id, wish, actor(claims))


API: list[Any] = [WavesApi]
