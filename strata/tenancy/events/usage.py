"""How much each tenant uses in a month, counted from its events into the catalog.

Once each: the counters and the place of the last event counted change in one transaction of the catalog.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from uuid import UUID

import msgspec
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from strata.tenancy.context import TenantContext
from strata.tenancy.events.consumers import OutsideConsumer
from strata.tenancy.events.tables import UsageCounterRow, UsageMarkRow, UsageReplayRow
from strata.tenancy.events.types import Delivery, Event, Place

_EVENTS = "events"
_NEVER = UUID(int=0)

Measure = Callable[[Event], Mapping[str, int]]
"""What an event adds to which meters."""


class UsageLine(msgspec.Struct, frozen=True):
    period: str
    meter: str
    amount: int


class Usage:
    def __init__(self, catalog: AsyncEngine, measures: Mapping[type[Event], Measure]) -> None:
        self._sessions = async_sessionmaker(catalog)
        self._measures = dict(measures)

    def consumer(self) -> OutsideConsumer:
        return OutsideConsumer("tenancy.usage", tuple(self._measures), self._count)

    async def of(self, tenant_id: UUID) -> list[UsageLine]:
        query = (
            select(UsageCounterRow.period, UsageCounterRow.meter, UsageCounterRow.amount)
            .where(UsageCounterRow.tenant_id == tenant_id)
            .order_by(UsageCounterRow.period, UsageCounterRow.meter)
        )
        async with self._sessions() as session:
            return [UsageLine(row.period, row.meter, row.amount) for row in await session.execute(query)]

    async def _count(self, context: TenantContext, deliveries: Sequence[Delivery]) -> None:
        async with self._sessions.begin() as session:
            fresh = await _not_yet_counted(session, context.id, deliveries)
            amounts: Counter[tuple[str, str]] = Counter()
            for delivery in fresh:
                period = delivery.occurred_at.astimezone(UTC).strftime("%Y-%m")
                amounts[period, _EVENTS] += 1
                for meter, amount in self._measures[type(delivery.event)](delivery.event).items():
                    amounts[period, meter] += amount
            if amounts:
                await _add(session, context.id, amounts)


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


async def _add(session: AsyncSession, tenant_id: UUID, amounts: Mapping[tuple[str, str], int]) -> None:
    statement = insert(UsageCounterRow)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "period", "meter"],
            set_={"amount": UsageCounterRow.amount + statement.excluded.amount, "updated_at": func.now()},
        ),
        [
            {"tenant_id": tenant_id, "period": period, "meter": meter, "amount": amount}
            for (period, meter), amount in sorted(amounts.items())
        ],
    )
