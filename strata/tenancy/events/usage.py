"""What a tenant's events say of its usage, counted into the catalog (tenancy/usage/book.py).

Once each: the counters and the place of the last event counted change in one transaction of the catalog.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from strata.tenancy.context import TenantContext
from strata.tenancy.events.consumers import OutsideConsumer
from strata.tenancy.events.tables import UsageMarkRow, UsageReplayRow
from strata.tenancy.events.types import Delivery, Event, Place
from strata.tenancy.usage.book import add

_EVENTS = "events"
_NEVER = UUID(int=0)

Measure = Callable[[Event], Mapping[str, int]]
"""What an event adds to which meters."""


class Usage:
    def __init__(self, catalog: AsyncEngine, measures: Mapping[type[Event], Measure]) -> None:
        self._sessions = async_sessionmaker(catalog)
        self._measures = dict(measures)

    def consumer(self) -> OutsideConsumer:
        return OutsideConsumer("tenancy.usage", tuple(self._measures), self._count)

    async def _count(self, context: TenantContext, deliveries: Sequence[Delivery]) -> None:
        async with self._sessions.begin() as session:
            fresh = await _not_yet_counted(session, context.id, deliveries)
            days: dict[date, Counter[tuple[UUID, str]]] = {}
            for delivery in fresh:
                amounts = days.setdefault(delivery.occurred_at.astimezone(UTC).date(), Counter())
                amounts[context.id, _EVENTS] += 1
                for meter, amount in self._measures[type(delivery.event)](delivery.event).items():
                    amounts[context.id, meter] += amount
            for day, amounts in sorted(days.items()):
                await add(await session.connection(), day, amounts)


async def _not_yet_counted(session: AsyncSession, tenant_id: UUID, deliveries: Sequence[Delivery]) -> list[Delivery]:
    fresh = []
    for delivery in deliveries:
        if delivery.replayed:
            replay = insert(UsageReplayRow).values(tenant_id=tenant_id, event_id=delivery.id)
            if await session.scalar(replay.on_conflict_do_nothing().returning(UsageReplayRow.event_id)):
                fresh.append(delivery)
    in_order = [delivery for delivery in deliveries if not delivery.replayed]
    if in_order:
        reached = await _hold_mark(session, tenant_id)
        new = [delivery for delivery in in_order if delivery.place > reached]
        if new:
            mark = await session.get_one(UsageMarkRow, tenant_id)
            mark.epoch, mark.position, mark.event_id = new[-1].place.epoch, new[-1].place.position, new[-1].id
        fresh += new
    return fresh


async def _hold_mark(session: AsyncSession, tenant_id: UUID) -> Place:
    statement = insert(UsageMarkRow).values(tenant_id=tenant_id, epoch=0, position=0, event_id=_NEVER)
    row = (
        await session.execute(
            statement.on_conflict_do_update(index_elements=["tenant_id"], set_={"epoch": UsageMarkRow.epoch}).returning(
                UsageMarkRow.epoch, UsageMarkRow.position
            )
        )
    ).one()
    return Place(row.epoch, row.position)
