"""Who may use a cell's connections when there are not enough: fairly over tenants, with a bound on the waiting."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from uuid import UUID

from strata.platform.errors import UnavailableError


class CellBusyError(UnavailableError):
    code = "cell-busy"
    title = "Too many requests at once"

    def __init__(self, detail: str) -> None:
        super().__init__(f"{detail} Try again in a moment.")


class Admission:
    """Counts the connections in use by tenant, and lets the next one in.

    A tenant's quota is an equal part of the capacity among the tenants seen lately. Below it, a tenant is let in while
    there is room at all. Above it, only while more is free than the reserve: nothing stands idle for want of a quota,
    and a newcomer finds room even when one tenant floods the cell. Who waits is taken in turn over tenants: next is the
    one that uses the fewest connections, then the one that has waited longest.
    """

    def __init__(
        self,
        capacity: int,
        *,
        wait_s: float,
        waiting_limit: int,
        activity_window_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._capacity = capacity
        # A pool of one or two has no room for a reserve; turns alone keep it fair.
        self._reserve = capacity // 5
        self._wait_s = wait_s
        self._waiting_limit = waiting_limit
        self._window_s = activity_window_s
        self._clock = clock
        self._used: dict[UUID, int] = {}
        self._total = 0
        self._seen: dict[UUID, float] = {}
        self._swept_at = clock()
        self._waiting: dict[UUID, deque[asyncio.Future[None]]] = {}
        self._waiting_count = 0

    @property
    def in_use(self) -> int:
        return self._total

    @property
    def waiting(self) -> int:
        return self._waiting_count

    def used_by(self, tenant_id: UUID) -> int:
        return self._used.get(tenant_id, 0)

    def try_admit(self, tenant_id: UUID) -> bool:
        """Without waiting; never past somebody who waits already and could be let in."""
        self._note(tenant_id)
        if tenant_id in self._waiting or not self._may(tenant_id):
            return False
        self._take(tenant_id)
        return True

    async def admit(self, tenant_id: UUID) -> None:
        """Wait for a turn. CellBusyError past the bound in time or in number."""
        if self.try_admit(tenant_id):
            return
        if self._waiting_count >= self._waiting_limit:
            self._make_way_for(tenant_id)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant_id, deque()).append(turn)
        self._waiting_count += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # The turn came in the same moment: it goes to the next.
                self.release(tenant_id)
            else:
                self._leave_queue(tenant_id, turn)
            if isinstance(error, TimeoutError):
                detail = "All connections to this account's database are busy."
                raise CellBusyError(detail) from None
            raise

    def _make_way_for(self, tenant_id: UUID) -> None:
        """Send away the last of the longest queue, so that one tenant's flood does not turn its neighbours away."""
        longest = max(self._waiting, key=lambda each: len(self._waiting[each]))
        full = CellBusyError(f"{self._waiting_limit} requests wait for this account's database already.")
        if len(self._waiting[longest]) <= len(self._waiting.get(tenant_id, ())) + 1:
            raise full
        turn = self._waiting[longest].pop()
        self._waiting_count -= 1
        if not turn.done():
            turn.set_exception(full)

    def release(self, tenant_id: UUID) -> None:
        self._total -= 1
        left = self._used[tenant_id] - 1
        if left:
            self._used[tenant_id] = left
        else:
            del self._used[tenant_id]
        if self._waiting:
            self._call_next()

    def _call_next(self) -> None:
        while (tenant_id := self._next()) is not None:
            queue = self._waiting[tenant_id]
            turn = queue.popleft()
            self._waiting_count -= 1
            if not queue:
                del self._waiting[tenant_id]
            # Cancelled a moment ago, and not yet gone from the queue by itself.
            if not turn.done():
                self._take(tenant_id)
                turn.set_result(None)

    def _next(self) -> UUID | None:
        # In the order in which they began to wait, which min() keeps among equals.
        candidates = [tenant_id for tenant_id in self._waiting if self._may(tenant_id)]
        return min(candidates, key=self.used_by, default=None)

    def _may(self, tenant_id: UUID) -> bool:
        free = self._capacity - self._total
        if free > self._reserve:
            return True
        return free > 0 and self.used_by(tenant_id) < self._quota()

    def _quota(self) -> int:
        return max(1, self._capacity // max(1, len(self._seen)))

    def _take(self, tenant_id: UUID) -> None:
        self._total += 1
        self._used[tenant_id] = self.used_by(tenant_id) + 1

    def _leave_queue(self, tenant_id: UUID, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(tenant_id, ())
        if not queue or turn not in queue:
            return
        queue.remove(turn)
        self._waiting_count -= 1
        if not queue:
            del self._waiting[tenant_id]

    def _note(self, tenant_id: UUID) -> None:
        now = self._clock()
        self._seen[tenant_id] = now
        if now - self._swept_at > self._window_s:
            self._swept_at = now
            self._seen = {
                each: at for each, at in self._seen.items() if now - at <= self._window_s or each in self._used
            }
