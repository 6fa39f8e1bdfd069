"""Keeps moves going: takes those that nobody works on and runs the machine on each, as long as the worker lives.

The rows of the catalog are the queue. A move is more than a job: it holds streams open for days, and whoever takes it
over must be seconds late, not minutes.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from strata.migrator import faults
from strata.migrator.errors import SupersededError
from strata.migrator.lease import held, take
from strata.migrator.machine import Machine
from strata.migrator.reaper import Reaper
from strata.migrator.steps import STEPS
from strata.migrator.work import Work

if TYPE_CHECKING:
    from strata.migrator.moves import Move
    from strata.migrator.work import Surroundings

log = structlog.get_logger(__name__)

_REAP_EVERY_S = 60.0


class Keeper:
    """`worker`: a name that no other process has at the same time."""

    def __init__(self, around: Surroundings, worker: str) -> None:
        self._around = around
        self._worker = worker
        self._running: dict[UUID, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled. Moves under way are let go of then, and another worker takes them up."""
        reaping = asyncio.create_task(self._reap(), name="move-reaper")
        try:
            while True:
                self._woken.clear()
                await self._take_up()
                try:
                    async with asyncio.timeout(self._around.settings.poll_s):
                        await self._woken.wait()
                except TimeoutError:
                    continue
        finally:
            tasks = [reaping, *self._running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def work_on(self, move_id: UUID) -> Move | None:
        """Take one move and work it until it rests; None when somebody else has it. For tests and for the command line."""
        taken = await take(self._around.moves, move_id, self._worker, self._around.settings.lease_s)
        if taken is None:
            return None
        move, found_in = taken
        faults.works_for(move.tenant_id)
        work = Work(move, self._around, await self._around.sites.source(move), await self._around.sites.target(move))
        try:
            async with held(self._around.moves, work, self._around.settings):
                return await Machine(self._around.moves, STEPS).run(work, found_in)
        finally:
            await work.let_crossing_go()
            await work.streams.close_all()

    async def _take_up(self) -> None:
        try:
            workable = await self._around.moves.workable()
        except (SQLAlchemyError, OSError) as error:
            log.warning("moves.unreadable", error=type(error).__name__)
            return
        for move_id in workable:
            if move_id not in self._running:
                task = asyncio.create_task(self._work_and_tell(move_id), name=f"move-{move_id}")
                self._running[move_id] = task
                task.add_done_callback(partial(self._done, move_id))

    def _done(self, move_id: UUID, _task: asyncio.Task[None]) -> None:
        self._running.pop(move_id, None)

    async def _work_and_tell(self, move_id: UUID) -> None:
        try:
            await self.work_on(move_id)
        except SupersededError as error:
            log.warning("move.superseded", move=str(move_id), detail=error.detail)
        except Exception:
            # The edge of the job: the lease is free again, and the next look takes the move up from what is written.
            log.exception("move.dropped", move=str(move_id))

    async def _reap(self) -> None:
        while True:
            try:
                await Reaper(self._around).reap()
            except Exception:
                log.exception("moves.not_reaped")
            await asyncio.sleep(_REAP_EVERY_S)
