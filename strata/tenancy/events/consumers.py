"""Who is told of events.

Delivery is at least once, so a consumer has to know what it has dealt with already. There are two kinds, by where the
effect is. A TenantConsumer writes to the tenant's own tables, and its mark is raised in the same transaction: whatever
dies when, the effect is there once. An OutsideConsumer acts elsewhere and sees to it itself, by the event's id or place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from strata.tenancy.context import TenantContext
from strata.tenancy.events import marks
from strata.tenancy.events.types import Delivery, Entry, Event, EventKind
from strata.tenancy.session import Tenants, TenantSession


class TenantConsumer(msgspec.Struct, frozen=True):
    name: str
    """Stands in the marks: a consumer that is renamed begins anew."""
    events: tuple[type[Event], ...]
    handle: Callable[[TenantSession, Sequence[Delivery]], Awaitable[None]]
    """The effect, in the tenant's transaction; events in order, none of them seen before."""


class OutsideConsumer(msgspec.Struct, frozen=True):
    name: str
    events: tuple[type[Event], ...]
    handle: Callable[[TenantContext, Sequence[Delivery]], Awaitable[None]]
    """Events in order; some of them may come again."""


Consumer = TenantConsumer | OutsideConsumer


def readers(consumer: Consumer) -> dict[EventKind, msgspec.json.Decoder[Event]]:
    return {event.kind: msgspec.json.Decoder(event) for event in consumer.events}


def read(
    entries: Iterable[Entry], known: dict[EventKind, msgspec.json.Decoder[Event]], *, replayed: bool = False
) -> list[Delivery]:
    """What of these concerns the consumer. msgspec.ValidationError when a payload is not what its kind says."""
    return [
        Delivery(
            entry.id,
            entry.tenant_id,
            entry.place,
            entry.occurred_at,
            entry.transaction_id,
            known[entry.kind].decode(entry.payload),
            replayed,
        )
        for entry in entries
        if entry.kind in known
    ]


async def deliver(tenants: Tenants, context: TenantContext, consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
    """One call of the consumer; when it returns, these need not be delivered to it again."""
    match consumer:
        case TenantConsumer():
            async with tenants.transaction(context) as session:
                reached = await marks.hold(session, consumer.name)
                fresh = [delivery for delivery in deliveries if delivery.place > reached]
                if fresh:
                    await consumer.handle(session, fresh)
                    await marks.advance(session, consumer.name, fresh[-1].place, fresh[-1].id)
        case OutsideConsumer():
            await consumer.handle(context, deliveries)
