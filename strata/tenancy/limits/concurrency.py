"""Requests at once, of one tenant: up to the soft limit they run, beyond it they queue, at the hard limit they are refused.

Each process holds its share of the limits: with n processes that serve, an n-th part, rounded up. Nobody is asked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from uuid import UUID

from strata.tenancy.limits.errors import TooManyAtOnceError
from strata.tenancy.plans import Limits


class Crowd:
    """Requests of one tenant that are here."""

    __slots__ = ("queue", "running", "tenant_id")

    def __init__(self, tenant_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.running = 0
        self.queue: deque[asyncio.Future[None]] = deque()


class Concurrency:
    """One per process."""

    def __init__(self, processes: Callable[[], int], *, soft_wait_s: float) -> None:
        self._processes = processes
        self._soft_wait_s = soft_wait_s
        self._crowds: dict[UUID, Crowd] = {}
        self.queued = 0
        """Of those counted since the process began: had to wait."""
        self.let_through = 0
        """Waited the whole time, and then ran above the soft limit."""
        self.refused = 0

    def running(self, tenant_id: UUID) -> int:
        crowd = self._crowds.get(tenant_id)
        return 0 if crowd is None else crowd.running

    @property
    def waiting(self) -> int:
        return sum(len(crowd.queue) for crowd in self._crowds.values())

    def enter(self, tenant_id: UUID, limits: Limits) -> Crowd | None:
        """At once, or None: then `wait`. What it returns is to be given to `leave`."""
        crowd = self._crowds.get(tenant_id)
        if crowd is None:
            crowd = self._crowds[tenant_id] = Crowd(tenant_id)
        soft = limits.concurrent_requests_soft
        hard = limits.concurrent_requests
        ahead = crowd.running + len(crowd.queue)
        if hard is not None and ahead >= self._share(hard):
            self.refused += 1
            raise TooManyAtOnceError(hard)
        if soft is not None and ahead >= self._share(soft):
            return None
        crowd.running += 1
        return crowd

    async def wait(self, tenant_id: UUID, limits: Limits) -> Crowd:
        """For a place below the soft limit; past the time that this may take, the request runs above it."""
        crowd = self._crowds[tenant_id]
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        crowd.queue.append(turn)
        self.queued += 1
        try:
            async with asyncio.timeout(self._soft_wait_s):
                await turn
        except TimeoutError:
            if not turn.done() or turn.cancelled():
                _leave_queue(crowd, turn)
                crowd.running += 1
                self.let_through += 1
        except BaseException:
            if turn.done() and not turn.cancelled():
                # The turn came in the same moment: it goes to the next.
                self.leave(crowd, limits)
            else:
                _leave_queue(crowd, turn)
                self._forget_empty(crowd)
            raise
        return crowd

    def leave(self, crowd: Crowd, limits: Limits) -> None:
        crowd.running -= 1
        soft = limits.concurrent_requests_soft
        while crowd.queue and (soft is None or crowd.running < self._share(soft)):
            turn = crowd.queue.popleft()
            # Given up a moment ago, and not yet gone from the queue by itself.
            if not turn.done():
                crowd.running += 1
                turn.set_result(None)
        self._forget_empty(crowd)

    def _forget_empty(self, crowd: Crowd) -> None:
        if not crowd.running and not crowd.queue:
            self._crowds.pop(crowd.tenant_id, None)

    def _share(self, limit: int) -> int:
        return -(-limit // self._processes())


def _leave_queue(crowd: Crowd, turn: asyncio.Future[None]) -> None:
    # Whoever left meanwhile has taken it out when it was its turn.
    if turn in crowd.queue:
        crowd.queue.remove(turn)
