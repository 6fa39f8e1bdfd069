"""Which standby a read goes to, if any: decided from what is known here, without asking anybody."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from strata.platform.database.failures import NO_ANSWER
from strata.platform.errors import StrataError
from strata.tenancy.replicas import position
from strata.tenancy.replicas.client import CLIENT, ClientReads
from strata.tenancy.replicas.door import NOT_ON_STANDBY, standby_entry_message
from strata.tenancy.replicas.register import pool_name
from strata.tenancy.replicas.watch import CellWatch, Ended, Standby

if TYPE_CHECKING:
    from strata.platform.database.lsn import Lsn
    from strata.tenancy.catalog.registry import Registry
    from strata.tenancy.cell.door import CellSecret
    from strata.tenancy.context import TenantContext
    from strata.tenancy.replicas.register import ReplicaRegister

log = structlog.get_logger(__name__)

ENTER_WITHIN_S = 0.5
"""A standby that takes longer to let a reader in has lost it to the primary."""
_REGISTER_READ_EVERY_S = 5.0
_UNUSED_FOR_S = 60.0
_CATALOG_FAILS = (*NO_ANSWER, SQLAlchemyError, StrataError)


class StandbyWay:
    """One reader's way to a standby; tells the watch what became of it."""

    __slots__ = ("_asks_for_position", "_client", "_standby", "message", "pool")
    timeout_s = ENTER_WITHIN_S

    def __init__(
        self, standby: Standby, client: ClientReads, pool: str, message: str, *, asks_for_position: bool
    ) -> None:
        self._asks_for_position = asks_for_position
        self._standby = standby
        self._client = client
        self.pool = pool
        self.message = message

    def refused(self, sqlstate: str | None) -> None:
        """Nothing of the caller's has run: the primary is next. `sqlstate`: None when it was no answer at all."""
        if sqlstate == NOT_ON_STANDBY and self._asks_for_position:
            self._standby.lags()
        else:
            self._standby.shun()

    def entered(self, connection: Ended) -> None:
        self._standby.entered += 1
        self._standby.in_use.add(connection)

    def left(self, connection: Ended) -> None:
        self._standby.in_use.discard(connection)

    def lost(self) -> None:
        """Statements of the caller's had run: the request may be run again, on the primary."""
        self._client.lost_standby = True
        self._standby.shun()


class ReplicaChoice:
    """One per process. Follows the standbys of those cells from which somebody reads."""

    def __init__(self, register: ReplicaRegister, registry: Registry) -> None:
        self._register = register
        self._registry = registry
        self._watches: dict[str, CellWatch] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wanted_at: dict[str, float] = {}
        self._secrets: dict[str, CellSecret] = {}
        self._any = False
        self._asked_at = float("-inf")

    def choose(self, context: TenantContext) -> StandbyWay | None:
        """None: read from the primary."""
        client = CLIENT.get()
        if client is None or not client.may_use_standby or client.wrote or client.lost_standby:
            return None
        cell = context.placement.cell
        self._wanted_at[cell] = time.monotonic()
        watch = self._watches.get(cell)
        if watch is None:
            if cell not in self._tasks:
                # In a context of its own: it outlives the request that happens to start it, and must not log as that.
                self._tasks[cell] = asyncio.create_task(
                    self._follow(cell), name=f"standbys-{cell}", context=contextvars.Context()
                )
            return None
        usable = [standby for standby in watch.standbys.values() if standby.usable]
        if not usable:
            return None
        # The fewest readers of this process; with none, the furthest.
        standby = min(usable, key=lambda each: (len(each.in_use), -each.replayed))
        secret = self._secrets[cell]
        after: Lsn | None = None
        if client.token is not None:
            after = position.opened(secret, context, client.token)
            if after is None or not standby.may_have(after):
                return None
        # Asked for also where the watch has seen it replayed: one that crashes comes back further behind than it was.
        message = standby_entry_message(secret, context, standby.id, after)
        return StandbyWay(standby, client, pool_name(cell, standby.id), message, asks_for_position=bool(after))

    async def close(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _follow(self, cell: str) -> None:
        """For as long as somebody reads from the cell. Fails quietly: without standbys the primary serves."""
        try:
            await self._watch(cell)
        except _CATALOG_FAILS as error:
            log.warning("standby.not_followed", cell=cell, error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(_REGISTER_READ_EVERY_S)
        finally:
            self._watches.pop(cell, None)
            self._tasks.pop(cell, None)

    async def _watch(self, cell: str) -> None:
        self._secrets[cell] = (await self._registry.cell(cell)).secret
        self._watches[cell] = watch = CellWatch(cell, await self._registry.admin_url_of_cell(cell))
        read_at = 0.0
        try:
            while time.monotonic() - self._wanted_at[cell] < _UNUSED_FOR_S:
                if time.monotonic() - read_at > _REGISTER_READ_EVERY_S:
                    await self._read_register(watch)
                    read_at = time.monotonic()
                await asyncio.sleep(await watch.look() if watch.standbys else _REGISTER_READ_EVERY_S)
        finally:
            watch.close()

    async def _read_register(self, watch: CellWatch) -> None:
        try:
            watch.follow(await self._register.of_cell(watch.cell) if await self._there_are_any() else [])
        except _CATALOG_FAILS as error:
            # The catalog is away: those known stay in use, for what they may serve their own doors decide.
            log.warning("standby.register_unread", cell=watch.cell, error=f"{type(error).__name__}: {error}")

    async def _there_are_any(self) -> bool:
        """Asked for all cells together: most platforms have no standbys, and some have a thousand cells."""
        if time.monotonic() - self._asked_at > _REGISTER_READ_EVERY_S:
            self._asked_at = time.monotonic()
            self._any = await self._register.any_at_all()
        return self._any
