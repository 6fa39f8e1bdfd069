"""The connections to one cell.

SQLAlchemy's pool lends in greenlets and knows one queue for everybody. Here taking a connection costs no greenlet and no
await, and who gets it is decided by tenant (`admission`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.platform.database.failures import NO_ANSWER
from strata.platform.settings import PoolSettings
from strata.tenancy.cell.admission import Admission
from strata.tenancy.cell.breaker import Breaker
from strata.tenancy.cell.budget import Budget
from strata.tenancy.cell.pooled import Pooled
from strata.tenancy.cell.rehearsal import lately_asked
from strata.tenancy.errors import CellUnavailableError

T = TypeVar("T")
_FAREWELL_S = 0.5


class CellPool:
    def __init__(
        self, name: str, engine: AsyncEngine, settings: PoolSettings, *, size: int, overflow: int, budget: Budget | None
    ) -> None:
        self.name = name
        self._engine = engine
        self._settings = settings
        self._size = size
        self._kept = 0 if budget is not None else size
        self._budget = budget
        self._breaker = Breaker()
        self.admission = Admission(
            size + overflow,
            wait_s=settings.acquire_timeout_s,
            waiting_limit=settings.waiting_limit,
            activity_window_s=settings.activity_window_s,
        )
        # A stack: busy connections keep their plans warm, idle ones grow old at the bottom and are closed.
        self._idle: list[Pooled] = []
        self._latest: Pooled | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._closed = False
        self.used_at = time.monotonic()

    @property
    def patience_s(self) -> float:
        """How long a server may take over what is to be done at once."""
        return self._settings.acquire_timeout_s

    @property
    def in_use(self) -> int:
        return self.admission.in_use

    @property
    def idle(self) -> int:
        return len(self._idle)

    async def acquire(self, tenant_id: UUID, schema_name: str) -> Pooled:
        """A connection for one transaction of the tenant; to be given to `release` or `discard`, whatever happens.

        Errors: CellBusyError when no turn came in time, CellUnavailableError when the cell does not answer,
        sqlalchemy.exc.DBAPIError when it refuses this process.
        """
        waited_ns = 0
        if not self.admission.try_admit(tenant_id):
            began_ns = time.perf_counter_ns()
            await self.admission.admit(tenant_id)
            waited_ns = time.perf_counter_ns() - began_ns
        pooled = self._pick(schema_name) or await self._opened(tenant_id)
        pooled.waited_ns = waited_ns
        self._latest = pooled
        pooled.transactions += 1
        if pooled.schema_name != schema_name:
            pooled.schema_name = schema_name
            pooled.schemas.add(schema_name)
        return pooled

    def release(self, pooled: Pooled, tenant_id: UUID) -> None:
        """Take back a connection. One that is not as it was taken, or has grown old or fat, is closed instead."""
        self.used_at = now = time.monotonic()
        if self._closed or not pooled.is_clean() or self._is_worn(pooled, now):
            self._close(pooled)
        else:
            self._keep(pooled, now)
        self.admission.release(tenant_id)

    def discard(self, pooled: Pooled, tenant_id: UUID) -> None:
        self._close(pooled)
        self.admission.release(tenant_id)

    def mistrust_idle(self) -> None:
        """A connection was found dead: those that lie idle since then, a restart of the server say, are dead too."""
        for pooled in self._idle[:]:
            self._drop(pooled)

    def lately_asked(self, schema_name: str) -> Sequence[str]:
        """What was last asked in the schema, as far as connections at hand still know."""
        at_hand = self._idle if self._latest is None else [*self._idle, self._latest]
        return lately_asked(reversed(at_hand), schema_name)

    async def make_ready(self, schema_name: str, rehearse: Callable[[Pooled], Awaitable[None]]) -> None:
        """Have connections idle that know the schema: all that a cell of its own is meant to have, half of a shared one's.

        One after the other, and only while nobody waits for a connection. What cannot be opened is left to who needs it.
        """
        wanted = self._size if self._budget is not None else max(1, self._size // 2)
        for _ in range(wanted - sum(each.schema_name == schema_name for each in self._idle)):
            if self._closed or self.admission.waiting:
                return
            pooled = await self._spare(schema_name)
            if pooled is None:
                return
            pooled.schema_name = schema_name
            pooled.schemas.add(schema_name)
            try:
                await rehearse(pooled)
            finally:
                if pooled.is_clean() and not self._closed:
                    self._keep(pooled, time.monotonic())
                else:
                    self._close(pooled)

    async def _spare(self, schema_name: str) -> Pooled | None:
        """One that lies idle and last served others, or a new one, if there may be one more."""
        for index, pooled in enumerate(self._idle):
            if pooled.schema_name != schema_name:
                return self._taken(index)
        if len(self._idle) + self.in_use >= self._size or not (self._budget is None or self._budget.try_take()):
            return None
        try:
            return await self._connect()
        except (CellUnavailableError, DBAPIError):
            if self._budget is not None:
                self._budget.give()
            return None

    def in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run to its end even if who asked is gone; `close` waits for it."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def close_idle(self, now: float) -> None:
        """Close what has lain idle too long, save as many as this pool keeps."""
        surplus = len(self._idle) - self._kept
        for pooled in self._idle[: max(0, surplus)]:
            if now - pooled.idle_since > self._settings.idle_close_s:
                self._drop(pooled)

    async def close(self) -> None:
        """Close the idle ones now, those in use when they come back."""
        self._closed = True
        self.mistrust_idle()
        while self._background:
            await asyncio.wait(self._background)
        await self._engine.dispose()

    def _pick(self, schema_name: str) -> Pooled | None:
        """Rather one that was in the same schema last: changing the search_path has the back end plan anew."""
        for index in range(len(self._idle) - 1, -1, -1):
            if self._idle[index].schema_name == schema_name:
                return self._taken(index)
        return self._taken(-1) if self._idle else None

    def _taken(self, index: int) -> Pooled:
        pooled = self._idle.pop(index)
        if self._budget is not None:
            self._budget.busy(pooled)
        return pooled

    def _keep(self, pooled: Pooled, now: float) -> None:
        pooled.idle_since = now
        self._idle.append(pooled)
        if self._budget is not None:
            self._budget.idle(pooled, partial(self._drop, pooled))

    def _drop(self, pooled: Pooled) -> None:
        self._idle.remove(pooled)
        if self._budget is not None:
            self._budget.busy(pooled)
        self._close(pooled)

    def _is_worn(self, pooled: Pooled, now: float) -> bool:
        # A back end that touched 1,000 schemas held 189 MB, 20 MB at 100: it never gives its caches back.
        return (
            len(pooled.schemas) > self._settings.recycle_after_schemas
            or pooled.transactions >= self._settings.recycle_after_transactions
            or now - pooled.opened_at > self._settings.recycle_after_s
        )

    async def _opened(self, tenant_id: UUID) -> Pooled:
        """For a tenant that has been admitted; who gets none is so no longer."""
        opening = self.in_background(self._open())
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Half a connection cannot be cancelled cleanly; whole, it serves the next. Until then it is in use: with a
            # server that answers nobody, there would else be one more for each request that is given up.
            opening.add_done_callback(partial(self._adopt, tenant_id))
            raise
        except BaseException:
            self.admission.release(tenant_id)
            raise

    def _adopt(self, tenant_id: UUID, opening: asyncio.Task[Pooled]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            if self._closed:
                self._close(opening.result())
            else:
                self._keep(opening.result(), time.monotonic())
        self.admission.release(tenant_id)

    async def _open(self) -> Pooled:
        if not self._breaker.lets_through():
            raise CellUnavailableError(self.name)
        try:
            if self._budget is not None:
                await self._budget.take(self._settings.acquire_timeout_s)
            try:
                pooled = await self._connect()
            except BaseException:
                if self._budget is not None:
                    self._budget.give()
                raise
        except (CellUnavailableError, DBAPIError):
            raise
        except BaseException:
            self._breaker.undecided()
            raise
        return pooled

    async def _connect(self) -> Pooled:
        try:
            connection = await self._engine.connect()
        except DBAPIError as error:
            # It answered: no.
            if _is_refusal(error):
                self._breaker.succeeded()
                raise
            self._breaker.failed()
            raise CellUnavailableError(self.name) from error
        except (TimeoutError, OSError) as error:
            self._breaker.failed()
            raise CellUnavailableError(self.name) from error
        self._breaker.succeeded()
        return Pooled(self._engine, connection, time.monotonic())

    def _close(self, pooled: Pooled) -> None:
        _ = self.in_background(self._close_now(pooled))

    async def _close_now(self, pooled: Pooled) -> None:
        try:
            if not pooled.driver.is_idle():
                pooled.driver.terminate()
            async with asyncio.timeout(_FAREWELL_S):
                await pooled.close()
        except (DBAPIError, *NO_ANSWER):
            # The server is gone, and with it the connection; or it hangs, and others wait for the budget's share.
            pooled.driver.terminate()
        finally:
            if self._budget is not None:
                self._budget.give()


def _is_refusal(error: DBAPIError) -> bool:
    """Whether the server spoke, and is up: a wrong password, an unknown database, too many connections."""
    sqlstate = str(getattr(error.orig, "sqlstate", None) or "")
    return bool(sqlstate) and not sqlstate.startswith(("08", "57P"))
