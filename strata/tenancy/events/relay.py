"""The relay: takes events from the outboxes of the cells it has the lease of, and tells the consumers.

At rest it costs nothing but a look at each cell's one table now and then; a commit anywhere wakes it (bell.py). Several
may run: each cell is relayed by whoever holds its lease, an advisory lock that PostgreSQL frees when the process dies.
Should two ever overlap for a moment, consumers drop what comes twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError

from strata.platform.database.failures import NO_ANSWER
from strata.platform.errors import UnavailableError
from strata.tenancy.events.cell_relay import CellRelay
from strata.tenancy.events.lane import ContextSource, Lane
from strata.tenancy.events.leases import Leases, leases
from strata.tenancy.events.outbox import CellOutbox

if TYPE_CHECKING:
    from sqlalchemy import URL

    from strata.platform.settings import EventSettings
    from strata.tenancy.cell.engines import CellSource
    from strata.tenancy.events.bell import Ear
    from strata.tenancy.events.consumers import Consumer
    from strata.tenancy.events.remainders import Outboxes, RelayedCell
    from strata.tenancy.session import Tenants

log = structlog.get_logger(__name__)


class Relay:
    def __init__(
        self,
        catalog: URL,
        cells: CellSource,
        outboxes: Outboxes,
        tenants: Tenants,
        contexts: ContextSource,
        consumers: Sequence[Consumer],
        ear: Ear,
        settings: EventSettings,
    ) -> None:
        self._catalog = catalog
        self._cells = cells
        self._outboxes = outboxes
        self._tenants = tenants
        self._contexts = contexts
        self._consumers = consumers
        self._ear = ear
        self._settings = settings
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def relaying(self) -> frozenset[str]:
        """The cells this process has the lease of."""
        return frozenset(self._tasks)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Relays within the block. What is under way at its end is cut short, and delivered again by the next."""
        await self._ear.start()
        task = asyncio.create_task(self._run(), name="relay")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._ear.close()

    async def _run(self) -> None:
        while True:
            try:
                async with leases(self._catalog) as held:
                    await self._hold(held)
            except UnavailableError as error:
                log.warning("relay.without-leases", reason=error.detail)
            except (DBAPIError, *NO_ANSWER) as error:
                # The catalog does not answer, or has said farewell: what closes a connection may meet that too.
                log.warning("relay.without-leases", reason=repr(error))
            except Exception:
                # The edge of the relay's work. Nobody waits for this task: the relay would have ended unseen, and for good.
                log.exception("relay.failed")
            finally:
                await self._stop(list(self._tasks))
            await asyncio.sleep(self._settings.lease_look_s)

    async def _hold(self, held: Leases) -> None:
        """Take every lease that is free, again and again; returns when those held are lost."""
        while not held.lost.is_set():
            known = {cell.name: cell for cell in await self._outboxes.cells()}
            ended = [name for name, task in self._tasks.items() if task.done() or name not in known]
            for name, failure in zip(ended, await self._stop(ended), strict=True):
                if name in known:
                    log.error("relay.cell-failed", cell=name, error=repr(failure))
                # Perhaps somebody else has better luck with it.
                await held.give_back(name)
            for name in await held.try_take(known):
                log.info("relay.lease-taken", cell=name)
                self._tasks[name] = asyncio.create_task(self._relay(known[name]), name=f"relay-{name}")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.lease_look_s):
                    await held.lost.wait()

    async def _relay(self, cell: RelayedCell) -> None:
        outbox = CellOutbox(self._cells, cell.name)
        relay = CellRelay(cell, outbox, self._lane_of(outbox), self._ear, self._settings)
        try:
            await relay.run()
        finally:
            await asyncio.shield(outbox.close())

    def _lane_of(self, outbox: CellOutbox) -> Callable[[UUID], Lane]:
        def make(tenant_id: UUID) -> Lane:
            return Lane(
                tenant_id,
                outbox,
                self._outboxes,
                self._tenants,
                self._contexts,
                self._consumers,
                self._settings,
            )

        return make

    async def _stop(self, names: list[str]) -> list[BaseException | None]:
        tasks = [self._tasks.pop(name) for name in names]
        for task in tasks:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)
