"""Events that a consumer could not deal with. Seen, kept whole, tried again or given up by a person."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import delete, select, text

from strata.platform.errors import NotFoundError
from strata.tenancy.events import marks
from strata.tenancy.events.consumers import Consumer, OutsideConsumer, TenantConsumer, read, readers
from strata.tenancy.events.models import DeadLetter
from strata.tenancy.events.types import Entry

if TYPE_CHECKING:
    from strata.tenancy.context import TenantContext
    from strata.tenancy.session import Tenants, TenantSession


class NoDeadLetterError(NotFoundError):
    code = "no-dead-letter"
    title = "No such dead letter"

    def __init__(self, letter_id: UUID) -> None:
        super().__init__(f"There is no dead letter {letter_id}; strata events dead shows those there are.")


class NoConsumerError(NotFoundError):
    code = "no-consumer"
    title = "No such consumer"

    def __init__(self, name: str) -> None:
        super().__init__(f"This version of Strata has no consumer «{name}»; discard the letter, or go back a version.")


_BURY = text(
    """
    INSERT INTO event_dead_letter (tenant_id, consumer, event_id, epoch, position, type, version, occurred_at,
                                   transaction_id, payload, error, attempts)
    VALUES (:tenant, :consumer, :event_id, :epoch, :position, :type, :version, :occurred_at,
            :transaction_id, CAST(:payload AS jsonb), :error, :attempts)
    ON CONFLICT (tenant_id, consumer, event_id) DO NOTHING
    """
)


async def bury(
    tenants: Tenants, context: TenantContext, consumer: Consumer, entry: Entry, error: str, tries: int
) -> None:
    """Keep the event, and let the consumer go on behind it: in one transaction, so that none is passed unseen."""
    async with tenants.transaction(context) as session:
        reached = await marks.hold(session, consumer.name) if isinstance(consumer, TenantConsumer) else None
        if reached is not None and reached >= entry.place:
            return
        await session.execute(
            _BURY,
            {
                "tenant": context.id,
                "consumer": consumer.name,
                "event_id": entry.id,
                "epoch": entry.place.epoch,
                "position": entry.place.position,
                "type": entry.kind.type,
                "version": entry.kind.version,
                "occurred_at": entry.occurred_at,
                "transaction_id": str(entry.transaction_id),
                "payload": entry.payload,
                "error": error,
                "attempts": tries,
            },
        )
        if reached is not None:
            await marks.advance(session, consumer.name, entry.place, entry.id)


async def dead_letters(tenants: Tenants, context: TenantContext) -> list[DeadLetter]:
    """The tenant's, the oldest event first."""
    async with tenants.reading(context) as session:
        return list(await session.scalars(select(DeadLetter).order_by(DeadLetter.epoch, DeadLetter.position)))


async def retry(tenants: Tenants, context: TenantContext, consumers: tuple[Consumer, ...], letter_id: UUID) -> None:
    """Hand the event to its consumer once more; what that raises is raised, and the letter stays."""
    async with tenants.transaction(context) as session:
        letter = await _taken(session, letter_id)
        consumer = next((each for each in consumers if each.name == letter.consumer), None)
        if consumer is None:
            raise NoConsumerError(letter.consumer)
        deliveries = read([letter.entry], readers(consumer), replayed=True)
        await session.execute(delete(DeadLetter).where(DeadLetter.id == letter_id))
        # The letter goes with the effect. An effect elsewhere comes first, and is dropped as a repeat if this one fails.
        match consumer:
            case TenantConsumer():
                await consumer.handle(session, deliveries)
            case OutsideConsumer():
                await consumer.handle(context, deliveries)


async def discard(tenants: Tenants, context: TenantContext, letter_id: UUID) -> None:
    async with tenants.transaction(context) as session:
        await _taken(session, letter_id)
        await session.execute(delete(DeadLetter).where(DeadLetter.id == letter_id))


async def _taken(session: TenantSession, letter_id: UUID) -> DeadLetter:
    letter = await session.scalar(select(DeadLetter).where(DeadLetter.id == letter_id).with_for_update())
    if letter is None:
        raise NoDeadLetterError(letter_id)
    return letter
