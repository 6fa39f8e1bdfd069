"""One tenant's part of one cell's outbox: its consumers, each where it stands.

Order is kept per consumer: what fails is tried again before anything behind it, until it is delivered or has become a
dead letter. Consumers do not wait for each other; rows go when the last of them is past.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

import structlog

from strata.platform.database.availability import is_unreachable
from strata.platform.errors import UnavailableError
from strata.tenancy.errors import (
    ConcurrentUpdateError,
    TenantClosingError,
    TenantReadOnlyError,
    TenantSuspendedError,
    UnknownTenantError,
)
from strata.tenancy.events.consumers import Consumer, deliver, read, readers
from strata.tenancy.events.dead_letters import bury
from strata.tenancy.events.types import BEGINNING, Entry, Place
from strata.tenancy.model import TenantStatus

if TYPE_CHECKING:
    from strata.platform.settings import EventSettings
    from strata.tenancy.context import TenantContext
    from strata.tenancy.events.outbox import CellOutbox
    from strata.tenancy.events.remainders import Outboxes
    from strata.tenancy.session import Tenants

log = structlog.get_logger(__name__)

_FIRST_EPOCH = 1
_BATCHES_A_TURN = 4
_UNSETTLED_S = 0.01
_LONGEST_UNSETTLED_S = 0.1
_NOT_NEXT_S = 0.05
_FIRST_PAUSE_S = 0.1
_LONGEST_ERROR = 2000
_CONDITIONS = (
    UnavailableError,
    ConcurrentUpdateError,
    TenantSuspendedError,
    TenantReadOnlyError,
    TenantClosingError,
)
"""What passes by itself, or when somebody changes the tenant's status. Says nothing about the event: never counted."""


def _doubled(first_s: float, times: int) -> float:
    """So often, but no more than counts: of a tenant that is suspended for a day, the power is no float any more."""
    return first_s * float(2 ** min(times, 20))


class ContextSource(Protocol):
    async def get_by_id(self, tenant_id: UUID) -> TenantContext: ...
    async def fresh(self, tenant_id: UUID) -> TenantContext: ...


class Turn(Enum):
    EMPTY = auto()
    """Nothing more to take now."""
    MORE = auto()
    """There was more than a turn allows."""


class _Standing:
    """One consumer: where it is, and what holds it up."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.readers = readers(consumer)
        self.place = BEGINNING
        self.tries = 0
        """Of the event behind `place`, ended by the event's own fault."""
        self.one_by_one_to = BEGINNING
        """A batch that failed is taken apart up to here, to find the one that is to blame."""
        self.pauses = 0
        self.rests_until = 0.0

    def rest(self, longest_s: float) -> None:
        pause_s = min(_doubled(_FIRST_PAUSE_S, self.pauses), longest_s)
        self.pauses += 1
        self.rests_until = time.monotonic() + pause_s

    def passed(self, place: Place) -> None:
        self.place, self.tries, self.pauses, self.rests_until = place, 0, 0, 0.0


class Lane:
    def __init__(
        self,
        tenant_id: UUID,
        outbox: CellOutbox,
        outboxes: Outboxes,
        tenants: Tenants,
        contexts: ContextSource,
        consumers: Sequence[Consumer],
        settings: EventSettings,
    ) -> None:
        self._tenant_id = tenant_id
        self._outbox = outbox
        self._outboxes = outboxes
        self._tenants = tenants
        self._contexts = contexts
        self._standings = [_Standing(consumer) for consumer in consumers]
        self._settings = settings
        self._acknowledged = BEGINNING
        self._next_epoch = _FIRST_EPOCH
        """Known to have nothing older anywhere else."""
        self.rests_until = 0.0
        self._turns_for_nothing = 0

    async def turn(self) -> Turn:
        """Deliver what there is, as much as is fair to the other tenants."""
        try:
            context = await self._context()
            if context is None:
                await self._give_up()
                return Turn.EMPTY
            for _ in range(_BATCHES_A_TURN):
                if not await self._advance(context):
                    return Turn.EMPTY
        except Exception as error:  # noqa: BLE001 - the edge of the relay's work: another tenant's goes on
            log.warning("relay.lane-failed", tenant_id=str(self._tenant_id), error=repr(error))
            self.rests_until = time.monotonic() + self._settings.longest_pause_s
            return Turn.EMPTY
        return Turn.MORE

    async def _context(self) -> TenantContext | None:
        """None: the tenant is gone, and nobody is left to be told."""
        try:
            context = await self._contexts.get_by_id(self._tenant_id)
            if context.status is TenantStatus.CLOSED:
                context = await self._contexts.fresh(self._tenant_id)
        except UnknownTenantError:
            try:
                context = await self._contexts.fresh(self._tenant_id)
            except UnknownTenantError:
                return None
        return None if context.status is TenantStatus.CLOSED else context

    async def _give_up(self) -> None:
        entries = await self._outbox.take(self._tenant_id, BEGINNING, self._settings.batch)
        if entries:
            log.warning("relay.tenant-gone", tenant_id=str(self._tenant_id), events=len(entries))
            await self._outbox.acknowledge(self._tenant_id, entries[-1].place)
        else:
            # Rows are there, and an open transaction may still come before them.
            self.rests_until = time.monotonic() + _LONGEST_UNSETTLED_S

    async def _advance(self, context: TenantContext) -> bool:
        """One batch for everybody who is ready; whether there was anything."""
        now = time.monotonic()
        ready = [standing for standing in self._standings if standing.rests_until <= now]
        moved = False
        for place in sorted({standing.place for standing in ready}):
            entries = await self._take(place)
            for standing in ready:
                if entries and standing.place == place:
                    await self._hand_over(context, standing, entries)
                    moved = True
        await self._acknowledge()
        if moved:
            self._turns_for_nothing = 0
        else:
            self._rest(now)
        return moved

    def _rest(self, now: float) -> None:
        """Rows are there, and none to be had: an open transaction may still come before them, or a consumer rests."""
        resting = [standing.rests_until - now for standing in self._standings if standing.rests_until > now]
        longest_s = min(resting, default=_LONGEST_UNSETTLED_S)
        pause_s = longest_s if len(resting) == len(self._standings) else _doubled(_UNSETTLED_S, self._turns_for_nothing)
        self._turns_for_nothing += 1
        self.rests_until = max(self.rests_until, now + min(pause_s, longest_s))

    async def _take(self, after: Place) -> list[Entry]:
        entries = await self._outbox.take(self._tenant_id, after, self._settings.batch)
        allowed = []
        for entry in entries:
            if entry.place.epoch > self._next_epoch:
                if not await self._outboxes.is_next(self._tenant_id, entry.place.epoch, self._outbox.cell):
                    self.rests_until = time.monotonic() + _NOT_NEXT_S
                    break
                self._next_epoch = entry.place.epoch
            allowed.append(entry)
        return allowed

    async def _hand_over(self, context: TenantContext, standing: _Standing, entries: list[Entry]) -> None:
        if standing.place < standing.one_by_one_to:
            entries = entries[:1]
        try:
            deliveries = read(entries, standing.readers)
            if deliveries:
                async with asyncio.timeout(self._settings.handling_timeout_s):
                    await deliver(self._tenants, context, standing.consumer, deliveries)
        except Exception as error:  # noqa: BLE001 - the edge of the relay's work: a consumer may fail in any way
            await self._failed(context, standing, entries, error)
        else:
            standing.passed(entries[-1].place)

    async def _failed(
        self, context: TenantContext, standing: _Standing, entries: list[Entry], error: Exception
    ) -> None:
        about = {"tenant_id": str(self._tenant_id), "consumer": standing.consumer.name, "error": repr(error)}
        if isinstance(error, _CONDITIONS) or is_unreachable(error):
            standing.rest(self._settings.longest_pause_s)
            log.info("relay.consumer-waits", **about)
        elif len(entries) > 1:
            standing.one_by_one_to = entries[-1].place
        elif standing.tries + 1 < self._settings.tries:
            standing.tries += 1
            standing.rest(self._settings.longest_pause_s)
            log.warning("relay.delivery-failed", event_id=str(entries[0].id), tries=standing.tries, **about)
        else:
            told = repr(error)[:_LONGEST_ERROR]
            await bury(self._tenants, context, standing.consumer, entries[0], told, self._settings.tries)
            log.error("relay.dead-letter", event_id=str(entries[0].id), kind=str(entries[0].kind), **about)
            standing.passed(entries[0].place)

    async def _acknowledge(self) -> None:
        through = min(standing.place for standing in self._standings)
        if through > self._acknowledged:
            await self._outbox.acknowledge(self._tenant_id, through)
            self._acknowledged = through
