"""The relay of one cell: who has events waiting, and whose turn it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from strata.platform.errors import StrataError
from strata.tenancy.events.lane import Lane
from strata.tenancy.model import CellKind

if TYPE_CHECKING:
    from strata.platform.settings import EventSettings
    from strata.tenancy.events.bell import Ear
    from strata.tenancy.events.outbox import CellOutbox
    from strata.tenancy.events.remainders import RelayedCell

log = structlog.get_logger(__name__)


class CellRelay:
    def __init__(
        self,
        cell: RelayedCell,
        outbox: CellOutbox,
        lane_of: Callable[[UUID], Lane],
        ear: Ear,
        settings: EventSettings,
    ) -> None:
        self._cell = cell
        self._outbox = outbox
        self._lane_of = lane_of
        self._ear = ear
        self._settings = settings
        self._ring = ear.ring_of(cell.name)
        self._lanes: dict[UUID, Lane] = {}
        self._turns: dict[UUID, asyncio.Task[None]] = {}
        self._seats = asyncio.Semaphore(settings.tenants_at_once)

    async def run(self) -> None:
        """Until cancelled. A cell that does not answer is asked again; its events stay where they are."""
        try:
            while True:
                self._ring.clear()
                try:
                    waiting = await self._outbox.waiting(self._settings.tenants_at_a_look)
                except StrataError as error:
                    log.warning("relay.cell-unavailable", cell=self._cell.name, reason=error.detail)
                    await asyncio.sleep(self._settings.lease_look_s)
                    continue
                self._give_turns(waiting)
                await self._until_something_happens()
        finally:
            turns = list(self._turns.values())
            for turn in turns:
                turn.cancel()
            await asyncio.gather(*turns, return_exceptions=True)

    def _give_turns(self, waiting: list[UUID]) -> None:
        now = time.monotonic()
        wanted = set(waiting)
        self._lanes = {
            tenant_id: lane
            for tenant_id, lane in self._lanes.items()
            if tenant_id in wanted or tenant_id in self._turns
        }
        for tenant_id in waiting:
            lane = self._lanes.get(tenant_id)
            if lane is None:
                lane = self._lanes[tenant_id] = self._lane_of(tenant_id)
            if tenant_id not in self._turns and lane.rests_until <= now:
                self._turns[tenant_id] = asyncio.create_task(self._turn(tenant_id, lane))

    async def _turn(self, tenant_id: UUID, lane: Lane) -> None:
        """Turns are short and the seats are given in the order of asking: nobody's flood keeps others waiting long."""
        try:
            async with self._seats:
                await lane.turn()
        finally:
            del self._turns[tenant_id]
            self._ring.set()

    async def _until_something_happens(self) -> None:
        now = time.monotonic()
        rests = [lane.rests_until - now for tenant_id, lane in self._lanes.items() if tenant_id not in self._turns]
        wait_s = max(min([self._next_look_s(), *rests]), 0.0)
        if wait_s >= self._settings.close_after_s and not self._turns:
            await self._outbox.close()
        # Not wait_for(): in Python 3.11 that swallows a cancellation which comes together with the ring.
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._ring.wait()

    def _next_look_s(self) -> float:
        """Rings get lost at times; without Redis there are none. A dedicated cell is not kept awake by being looked at."""
        shared = self._cell.kind is CellKind.SHARED
        if not self._ear.hears:
            return self._settings.look_without_redis_s if shared else self._settings.look_s
        return self._settings.look_s if shared else self._settings.look_dedicated_s
