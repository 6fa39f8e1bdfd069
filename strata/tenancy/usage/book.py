"""What the catalog knows of usage: written in batches, read by tenants and staff."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import msgspec
from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from strata.tenancy.catalog.tables import TenantRow
from strata.tenancy.usage.meters import Meter
from strata.tenancy.usage.tables import UsageBatchRow, UsageCounterRow, UsageDayRow, UsageUserRow

_BATCHES_KEPT = timedelta(days=7)
_DAYS_KEPT = timedelta(days=400)
_GROWTH_DAYS = 7

Amounts = Mapping[tuple[UUID, str], int]
"""By tenant and meter."""


class UsageLine(msgspec.Struct, frozen=True):
    period: str
    meter: str
    amount: int


class DayLine(msgspec.Struct, frozen=True):
    day: date
    meter: str
    amount: int


class Growth(msgspec.Struct, frozen=True):
    """How much more a tenant used in the last seven whole days than in the seven before."""

    slug: str
    name: str
    meter: str
    before: int
    now: int
    percent: int | None
    """None: from nothing."""


class Batch(msgspec.Struct, frozen=True):
    """What one process counted in some seconds of one day. Written again it changes nothing."""

    id: UUID
    day: date
    amounts: dict[tuple[UUID, str], int]
    users: frozenset[tuple[UUID, bytes]]


# A tenant that has gone since is left out: what it used is of no use to anybody. In order, so that two processes that
# write the same rows wait for each other and not in a circle.
_LINES = """
SELECT l.tenant_id, {when}, l.meter, l.amount
FROM unnest(CAST(:tenants AS uuid[]), CAST(:meters AS text[]), CAST(:amounts AS bigint[])) AS l(tenant_id, meter, amount)
JOIN tenant t ON t.id = l.tenant_id
ORDER BY l.tenant_id, l.meter
"""
_DAY = f"INSERT INTO usage_day AS u (tenant_id, day, meter, amount) {_LINES.format(when='CAST(:day AS date)')}"
_MONTH = f"INSERT INTO usage_counter AS u (tenant_id, period, meter, amount) {_LINES.format(when=':period')}"
_ADD_DAY = text(f"{_DAY} ON CONFLICT (tenant_id, day, meter) DO UPDATE SET amount = u.amount + excluded.amount")
_ADD_MONTH = text(
    f"{_MONTH} ON CONFLICT (tenant_id, period, meter) DO UPDATE"
    " SET amount = u.amount + excluded.amount, updated_at = now()"
)
_RAISE_DAY = text(
    f"{_DAY} ON CONFLICT (tenant_id, day, meter) DO UPDATE SET amount = greatest(u.amount, excluded.amount)"
)
_RAISE_MONTH = text(
    f"{_MONTH} ON CONFLICT (tenant_id, period, meter) DO UPDATE"
    " SET amount = greatest(u.amount, excluded.amount), updated_at = now()"
)
_USERS = text(
    """
    INSERT INTO usage_user (tenant_id, period, digest)
    SELECT l.tenant_id, :period, l.digest
    FROM unnest(CAST(:tenants AS uuid[]), CAST(:digests AS bytea[])) AS l(tenant_id, digest)
    JOIN tenant t ON t.id = l.tenant_id
    ORDER BY l.tenant_id, l.digest
    ON CONFLICT DO NOTHING
    """
)


def period_of(day: date) -> str:
    return day.strftime("%Y-%m")


async def add(connection: AsyncConnection, day: date, amounts: Amounts) -> None:
    """Within the caller's transaction; for meters that add up."""
    await _write(connection, _ADD_DAY, _ADD_MONTH, day, amounts)


class UsageBook:
    def __init__(self, catalog: AsyncEngine) -> None:
        self._catalog = catalog

    async def count(self, batch: Batch) -> bool:
        """False: it had been counted before."""
        async with self._catalog.begin() as connection:
            mark = insert(UsageBatchRow).values(id=batch.id).on_conflict_do_nothing().returning(UsageBatchRow.id)
            if await connection.scalar(mark) is None:
                return False
            await add(connection, batch.day, batch.amounts)
            if batch.users:
                users = sorted(batch.users)
                await connection.execute(
                    _USERS,
                    {
                        "period": period_of(batch.day),
                        "tenants": [tenant_id for tenant_id, _ in users],
                        "digests": [digest for _, digest in users],
                    },
                )
        return True

    async def record_peaks(self, tenant_id: UUID, day: date, amounts: Mapping[Meter, int]) -> None:
        of_tenant = {(tenant_id, meter.value): amount for meter, amount in amounts.items()}
        async with self._catalog.begin() as connection:
            await _write(connection, _RAISE_DAY, _RAISE_MONTH, day, of_tenant)

    async def months(self, tenant_id: UUID, period: str | None = None) -> list[UsageLine]:
        """By period and meter; `period` None: all that are known."""
        counters = select(UsageCounterRow.period, UsageCounterRow.meter, UsageCounterRow.amount).where(
            UsageCounterRow.tenant_id == tenant_id
        )
        users = (
            select(UsageUserRow.period, func.count().label("amount"))
            .where(UsageUserRow.tenant_id == tenant_id)
            .group_by(UsageUserRow.period)
        )
        if period is not None:
            counters = counters.where(UsageCounterRow.period == period)
            users = users.where(UsageUserRow.period == period)
        async with self._catalog.connect() as connection:
            lines = [UsageLine(*row) for row in await connection.execute(counters)]
            lines += [UsageLine(row.period, Meter.ACTIVE_USERS, row.amount) for row in await connection.execute(users)]
        return sorted(lines, key=lambda line: (line.period, line.meter))

    async def days(self, tenant_id: UUID, since: date, until: date) -> list[DayLine]:
        """By day and meter, both ends included."""
        query = (
            select(UsageDayRow.day, UsageDayRow.meter, UsageDayRow.amount)
            .where(UsageDayRow.tenant_id == tenant_id, UsageDayRow.day.between(since, until))
            .order_by(UsageDayRow.day, UsageDayRow.meter)
        )
        async with self._catalog.connect() as connection:
            return [DayLine(*row) for row in await connection.execute(query)]

    async def growth(self, meter: str, today: date, *, limit: int = 20) -> list[Growth]:
        """Who grows fastest: the most more in the last seven whole days than in the seven before them."""
        middle = today - timedelta(days=_GROWTH_DAYS)
        total = func.max if meter in _PEAK_NAMES else func.sum
        now = func.coalesce(total(UsageDayRow.amount).filter(UsageDayRow.day >= middle), 0)
        before = func.coalesce(total(UsageDayRow.amount).filter(UsageDayRow.day < middle), 0)
        query = (
            select(TenantRow.slug, TenantRow.name, before.label("before"), now.label("now"))
            .join(UsageDayRow, UsageDayRow.tenant_id == TenantRow.id)
            .where(
                UsageDayRow.meter == meter,
                UsageDayRow.day >= middle - timedelta(days=_GROWTH_DAYS),
                UsageDayRow.day < today,
                TenantRow.closed_at.is_(None),
            )
            .group_by(TenantRow.id)
            .having(now > before)
            .order_by((now - before).desc(), TenantRow.slug)
            .limit(limit)
        )
        async with self._catalog.connect() as connection:
            rows = (await connection.execute(query)).all()
        return [
            Growth(row.slug, row.name, meter, int(row.before), int(row.now), _percent(int(row.before), int(row.now)))
            for row in rows
        ]

    async def purge(self, now: datetime) -> None:
        """Batches that nobody will bring again, and days nobody asks for any more. Months stay."""
        oldest = (now - _DAYS_KEPT).date()
        async with self._catalog.begin() as connection:
            await connection.execute(delete(UsageBatchRow).where(UsageBatchRow.counted_at < now - _BATCHES_KEPT))
            await connection.execute(delete(UsageDayRow).where(UsageDayRow.day < oldest))
            await connection.execute(delete(UsageUserRow).where(UsageUserRow.period < period_of(oldest)))


_PEAK_NAMES = frozenset(meter.value for meter in Meter if meter.is_peak)


def today() -> date:
    return datetime.now(UTC).date()


async def _write(connection: AsyncConnection, by_day: object, by_month: object, day: date, amounts: Amounts) -> None:
    lines: Sequence[tuple[tuple[UUID, str], int]] = sorted(_written(amounts))
    if not lines:
        return
    arrays = {
        "tenants": [tenant_id for (tenant_id, _), _ in lines],
        "meters": [meter for (_, meter), _ in lines],
        "amounts": [amount for _, amount in lines],
    }
    await connection.execute(by_day, {**arrays, "day": day})  # type: ignore[call-overload]
    await connection.execute(by_month, {**arrays, "period": period_of(day)})  # type: ignore[call-overload]


def _written(amounts: Amounts) -> Iterable[tuple[tuple[UUID, str], int]]:
    return ((line, amount) for line, amount in amounts.items() if amount)


def _percent(before: int, now: int) -> int | None:
    return round(100 * (now - before) / before) if before else None
