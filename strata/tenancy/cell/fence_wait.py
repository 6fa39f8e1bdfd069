"""Waiting for a cut-over, in the process: no connection is held, and one prober asks for all of a tenant's waiters.

Waiting inside PostgreSQL would fill the pool: with 10 connections and fences of 250 ms, neighbours' p99 was 198 ms
that way and 9 ms this way (architecture, «The tenant transaction»).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol
from uuid import UUID

from strata.platform.settings import FenceSettings
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import MoveInProgressError

_FIRST_PROBE_S = 0.005
_LONGEST_PROBE_S = 0.05


class ContextSource(Protocol):
    async def fresh(self, tenant_id: UUID) -> TenantContext: ...


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
        self._probers: dict[UUID, asyncio.Task[TenantContext]] = {}

    async def wait(self, context: TenantContext) -> TenantContext:
        """Return the tenant's context once it is open again, here or in its new home.

        MoveInProgressError when it is not within `fence.wait_s`. The caller enters anew, and may meet the next fence.
        """
        prober = self._probers.get(context.id)
        if prober is None:
            prober = asyncio.create_task(self._probe(context), name=f"fence-{context.id}")
            self._probers[context.id] = prober
            prober.add_done_callback(lambda _: self._probers.pop(context.id, None))
        try:
            # Shielded: a waiter that is cancelled must not end the probing for the others.
            return await asyncio.wait_for(asyncio.shield(prober), self._settings.wait_s)
        except TimeoutError:
            raise MoveInProgressError(context.id, self._settings.wait_s) from None

    async def _probe(self, context: TenantContext) -> TenantContext:
        deadline = time.monotonic() + self._settings.wait_s
        delay_s = _FIRST_PROBE_S
        while time.monotonic() < deadline:
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _LONGEST_PROBE_S)
            now = await self._contexts.fresh(context.id)
            if now.placement != context.placement or await self._is_open(now):
                return now
        raise MoveInProgressError(context.id, self._settings.wait_s)
