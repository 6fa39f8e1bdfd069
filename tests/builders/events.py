"""Consumers that can be watched and made to fail, and waiting for the relay to have done its work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar
from uuid import UUID

from strata.events import relaying
from strata.platform.errors import UnavailableError
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.events.consumers import Consumer, OutsideConsumer
from strata.tenancy.events.emitting import emit
from strata.tenancy.events.relay import Relay
from strata.tenancy.events.types import Delivery, Event, EventKind
from tests.builders.platform import admin_of

WITHIN_S = 20.0


class Noted(Event, frozen=True):
    """An event of the tests alone."""

    kind: ClassVar = EventKind("test.noted", 1)

    number: int
    writer: int = 0


class Notebook:
    """A consumer outside that remembers what it is told, each event once: a relay that is cut short between telling and
    marking tells again, and consumers drop repeats by the event's id.
    """

    def __init__(self, name: str = "test.notebook", *, fails_at: int | None = None) -> None:
        self.heard: dict[UUID, list[Delivery]] = {}
        self.calls = 0
        self.fails_at = fails_at
        self.out_of_reach = False
        self.consumer: Consumer = OutsideConsumer(name, (Noted,), self._hear)

    async def _hear(self, context: TenantContext, deliveries: Sequence[Delivery]) -> None:
        self.calls += 1
        if self.out_of_reach:
            message = "what I write to does not answer"
            raise UnavailableError(message)
        if any(isinstance(each.event, Noted) and each.event.number == self.fails_at for each in deliveries):
            message = "this one I cannot deal with"
            raise RuntimeError(message)
        known = self.heard.setdefault(context.id, [])
        ids = {each.id for each in known}
        known.extend(each for each in deliveries if each.id not in ids)

    def numbers(self, context: TenantContext) -> list[int]:
        return [each.event.number for each in self.heard.get(context.id, []) if isinstance(each.event, Noted)]


async def note(runtime: Runtime, context: TenantContext, *numbers: int, writer: int = 0) -> None:
    """One transaction that emits these."""
    async with runtime.tenants.transaction(context) as session:
        for number in numbers:
            await emit(session, Noted(number, writer))


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str, within_s: float = WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


async def waiting(runtime: Runtime, context: TenantContext, cell: str | None = None) -> int:
    """Rows of the tenant's in its cell's outbox."""
    async with admin_of(runtime, cell or context.placement.cell) as admin:
        count: int = await admin.fetchval("SELECT count(*) FROM strata.outbox WHERE tenant_id = $1", context.id)
        return count


async def all_told(runtime: Runtime, context: TenantContext) -> None:
    async def empty() -> bool:
        return await waiting(runtime, context) == 0

    await until(empty, "the outbox did not become empty")


@asynccontextmanager
async def told(runtime: Runtime, *notebooks: Notebook) -> AsyncIterator[Relay]:
    async with relaying(runtime, [notebook.consumer for notebook in notebooks]) as relay:
        yield relay
