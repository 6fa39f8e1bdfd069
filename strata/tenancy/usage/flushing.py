"""Brings what a process has counted to the catalog, every `flush_s` seconds and when the day ends.

What a crash loses: what was counted since the last flush, so `flush_s` seconds at most while the catalog answers; without
it, all that was counted since it stopped answering. A batch whose fate is unknown is sent again under its own id.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from strata.platform.ids import new_id
from strata.tenancy.usage.book import Batch, UsageBook, period_of
from strata.tenancy.usage.meter import Tally, UsageMeter
from strata.tenancy.usage.meters import Meter

log = structlog.get_logger(__name__)

_MS = 1_000_000
_LAST_WORDS_S = 5.0
_FORGET_AFTER_S = 600.0
_MOST_PENDING = 1000


def _now() -> datetime:
    return datetime.now(UTC)


class UsageFlusher:
    """One per process; begins by itself when there is something to report."""

    def __init__(
        self, meter: UsageMeter, book: UsageBook, *, flush_s: float, now: Callable[[], datetime] = _now
    ) -> None:
        self.meter = meter
        self.book = book
        self._flush_s = flush_s
        self._now = now
        self._day = now().date()
        self._reported: dict[tuple[UUID, str], int] = {}
        self._changed_at: dict[UUID, float] = {}
        self._pending: list[Batch] = []
        self._task: asyncio.Task[None] | None = None
        self._flushing = asyncio.Lock()
        self.flushed_at = 0.0
        meter.on_use.append(self._begin)

    @property
    def pending(self) -> int:
        """Batches that the catalog has not taken yet."""
        return len(self._pending)

    async def flush(self) -> bool:
        """Report everything counted so far; False: the catalog did not take it all, which is kept for the next time."""
        async with self._flushing:
            self._collect()
            while self._pending:
                try:
                    await self.book.count(self._pending[0])
                except (SQLAlchemyError, OSError) as error:
                    log.warning("usage.not_flushed", batches=len(self._pending), error=str(error))
                    return False
                del self._pending[0]
            self.flushed_at = time.monotonic()
            return True

    async def close(self) -> None:
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self.flush()

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="usage")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._wait_s())
            await self.flush()

    def _wait_s(self) -> float:
        now = self._now()
        midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
        # What is counted before midnight is of the day before.
        return min(self._flush_s, max(0.0, (midnight - now).total_seconds()))

    def _collect(self) -> None:
        today = self._now().date()
        day, self._day = self._day, today
        amounts = self._amounts()
        users = frozenset(self.meter.new_users)
        self.meter.new_users.clear()
        if period_of(today) != period_of(day):
            self.meter.begin_period()
        if amounts or users:
            self._append(Batch(new_id(), day, amounts, users))

    def _append(self, batch: Batch) -> None:
        last = self._pending[-1] if len(self._pending) > 1 else None
        if len(self._pending) >= _MOST_PENDING and last is not None and last.day == batch.day:
            # The catalog is away for long. The first may have been taken; later ones have never been sent.
            together = {
                line: last.amounts.get(line, 0) + batch.amounts.get(line, 0) for line in {*last.amounts, *batch.amounts}
            }
            self._pending[-1] = Batch(last.id, last.day, together, last.users | batch.users)
        else:
            self._pending.append(batch)

    def _amounts(self) -> dict[tuple[UUID, str], int]:
        """What has come since the last time, in whole units; fractions stay for the next."""
        counted = self._counted()
        new = {line: amount - self._reported.get(line, 0) for line, amount in counted.items()}
        changed = {line: amount for line, amount in new.items() if amount}
        for line in changed:
            self._reported[line] = counted[line]
        self._forget({tenant_id for tenant_id, _ in changed})
        return changed

    def _counted(self) -> dict[tuple[UUID, str], int]:
        counted: dict[tuple[UUID, str], int] = {}
        for tenant_id, tally in self.meter.tallies.items():
            for meter, amount in _of_requests(tally):
                counted[tenant_id, meter] = amount
        nanoseconds: dict[UUID, int] = {}
        for (_, tenant_id), load in self.meter.loads.items():
            nanoseconds[tenant_id] = nanoseconds.get(tenant_id, 0) + load.database_ns
            rows = counted.get((tenant_id, Meter.ROWS_TOUCHED.value), 0)
            counted[tenant_id, Meter.ROWS_TOUCHED.value] = rows + load.rows
        for tenant_id, total in nanoseconds.items():
            counted[tenant_id, Meter.DATABASE_MS.value] = total // _MS
        return counted

    def _forget(self, changed: set[UUID]) -> None:
        """Tenants that have not been here for long: everything of theirs has been reported."""
        now = time.monotonic()
        for tenant_id in changed:
            self._changed_at[tenant_id] = now
        for tenant_id in {*self.meter.tallies, *(each for _, each in self.meter.loads)}:
            if now - self._changed_at.setdefault(tenant_id, now) > _FORGET_AFTER_S:
                del self._changed_at[tenant_id]
                self.meter.tallies.pop(tenant_id, None)
                for cell, _ in [key for key in self.meter.loads if key[1] == tenant_id]:
                    del self.meter.loads[cell, tenant_id]
                for meter in Meter:
                    self._reported.pop((tenant_id, meter.value), None)


def _of_requests(tally: Tally) -> tuple[tuple[str, int], ...]:
    return (
        (Meter.REQUESTS.value, tally.requests),
        (Meter.API_CALLS.value, tally.api_calls),
        (Meter.REFUSED.value, tally.refused),
        (Meter.COMPUTE_MS.value, tally.compute_ns // _MS),
        (Meter.BYTES_IN.value, tally.bytes_in),
        (Meter.BYTES_OUT.value, tally.bytes_out),
    )
