"""Waiting for a cut-over, in the process: no connection is held, and one prober asks for all of a tenant's waiters.

Waiting inside PostgreSQL would fill the pool: with 10 connections and fences of 250 ms, neighbours' p99 was 198 ms
that way and 9 ms this way (architecture, «The tenant transaction»).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Protocol
from uuid import UUID

from strata.platform.settings import FenceSettings
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import MoveInProgressError
from strata.tenancy.model import TenantStatus

# Whoever opens the fence says so, by Redis. A look takes the processor that a cut-over wants: it is for when nothing is heard.
_FIRST_PROBE_S = 0.04
_LONGEST_PROBE_S = 0.05


class ContextSource(Protocol):
    async def fresh(self, tenant_id: UUID) -> TenantContext: ...


class _Prober:
    """Asks for everybody who waits for one tenant, and stops when nobody does any more."""

    __slots__ = ("news", "task", "waiters")

    def __init__(self, name: str, probe: Callable[[asyncio.Event], Coroutine[None, None, TenantContext]]) -> None:
        self.news = asyncio.Event()
        self.task = asyncio.create_task(probe(self.news), name=name)
        self.waiters = 0


class FenceWait:
    def __init__(
        self,
        contexts: ContextSource,
        is_open: Callable[[TenantContext], Awaitable[bool]],
        settings: FenceSettings,
    ) -> None:
        self._contexts = contexts
        self._is_open = is_open
        self._settings = settings
        self._probers: dict[UUID, _Prober] = {}

    async def wait(self, context: TenantContext) -> TenantContext:
        """Return the tenant's context once it is open again, here or in its new home.

        MoveInProgressError when it is not within `fence.wait_s`. The caller enters anew, and may meet the next fence.
        """
        prober = self._probers.get(context.id)
        if prober is None:
            prober = _Prober(f"fence-{context.id}", partial(self._probe, context))
            self._probers[context.id] = prober
        prober.waiters += 1
        try:
            # Not wait_for(): in Python 3.11 that swallows a cancellation which comes together with the end of the wait.
            async with asyncio.timeout(self._settings.wait_s):
                # Shielded: a waiter that is cancelled or gives up must not end the probing for the others.
                return await asyncio.shield(prober.task)
        except TimeoutError:
            raise MoveInProgressError(context.id, self._settings.wait_s) from None
        finally:
            prober.waiters -= 1
            if not prober.waiters:
                prober.task.cancel()
            over = prober.task.done() or not prober.waiters
            if over and self._probers.get(context.id) is prober:
                del self._probers[context.id]

    def wake(self, tenant_id: UUID) -> None:
        """The cut-over is over, it is said: look at once. Whoever hears nothing finds out by looking."""
        prober = self._probers.get(tenant_id)
        if prober is not None:
            prober.news.set()

    async def _probe(self, context: TenantContext, news: asyncio.Event) -> TenantContext:
        delay_s = _FIRST_PROBE_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await news.wait()
            news.clear()
            delay_s = min(delay_s * 2, _LONGEST_PROBE_S)
            now = await self._contexts.fresh(context.id)
            # Suspended or being deleted meanwhile: there is nothing to wait for, and the caller says why.
            shut = now.status not in {TenantStatus.ACTIVE, TenantStatus.READ_ONLY}
            if shut or now.placement != context.placement or await self._is_open(now):
                return now
