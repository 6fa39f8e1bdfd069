"""Queues scheduled jobs when they are due, zone by zone; of many workers, one does it for each occurrence."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from strata.platform.database.availability import is_unreachable
from strata.platform.jobs.declaration import DEFAULT_ATTEMPTS, AnyDeclaration, JobRegistry, Queue, Scope
from strata.platform.jobs.envelope import PLATFORM, Envelope
from strata.platform.jobs.schedules import Due, Schedule
from strata.platform.jobs.store import JobStore, NewJob

log = structlog.get_logger(__name__)

DEFAULT_ZONE = "UTC"
_AT_ONCE = 5000

# The row is the right to fire: whoever moves it on to an occurrence queues its jobs, in the same transaction.
_CLAIM = text(
    """
    INSERT INTO jobs.schedule_mark AS m (schedule, zone, due_at) VALUES (:schedule, :zone, :due_at)
    ON CONFLICT (schedule, zone) DO UPDATE SET due_at = excluded.due_at WHERE m.due_at < excluded.due_at
    RETURNING xmax = 0 AS first_sight
    """
)


class Recipient(msgspec.Struct, frozen=True):
    """One for whom a job is queued, and on what terms."""

    owner: str
    lane: str | None
    share: int | None
    attempts: int


class Audience(Protocol):
    """Who has scheduled jobs done."""

    async def zones(self) -> Sequence[str]: ...

    async def in_zone(self, connection: AsyncConnection, zone: str) -> Sequence[Recipient]: ...


PLATFORM_RECIPIENT = Recipient(PLATFORM, None, None, DEFAULT_ATTEMPTS)


class Scheduler:
    def __init__(
        self, catalog: AsyncEngine, store: JobStore, registry: JobRegistry, audience: Audience, *, tick_s: float
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._scheduled = [(each, each.schedule) for each in registry if each.schedule is not None]
        self._audience = audience
        self._tick_s = tick_s
        self._seen: dict[tuple[str, str], datetime] = {}

    async def run(self) -> None:
        while True:
            try:
                await self.tick(datetime.now(UTC))
            except (DBAPIError, OSError, TimeoutError) as error:
                if not is_unreachable(error):
                    raise
                # Nothing is lost: an occurrence that is late is still the latest when the catalog is back.
                log.warning("schedule.tick_failed", reason=str(error))
            await asyncio.sleep(self._tick_s)

    async def tick(self, now: datetime) -> int:
        """Queue what is due; returns how many jobs that were."""
        zones = await self._audience.zones() if any(d.scope is Scope.OWNER for d, _ in self._scheduled) else ()
        queued = 0
        for declaration, schedule in self._scheduled:
            for zone in zones if declaration.scope is Scope.OWNER else (DEFAULT_ZONE,):
                due = schedule.latest(now, _zone(zone))
                if self._seen.get((declaration.name, zone)) != due.at:
                    queued += await self._fire(declaration, schedule, zone, due)
                    self._seen[declaration.name, zone] = due.at
        return queued

    async def _fire(self, declaration: AnyDeclaration, schedule: Schedule, zone: str, due: Due) -> int:
        async with self._catalog.begin() as connection:
            claim = {"schedule": declaration.name, "zone": zone, "due_at": due.at}
            claimed = (await connection.execute(_CLAIM, claim)).first()
            # A schedule that is new, or new in this zone, has missed nothing.
            if claimed is None or (claimed.first_sight and not schedule.fires_at_first_sight):
                return 0
            recipients: Sequence[Recipient] = (PLATFORM_RECIPIENT,)
            if declaration.scope is Scope.OWNER:
                recipients = await self._audience.in_zone(connection, zone)
            for start in range(0, len(recipients), _AT_ONCE):
                some = recipients[start : start + _AT_ONCE]
                await self._store.insert([_job(declaration, schedule, due, each) for each in some], connection)
        log.info("schedule.fired", schedule=declaration.name, zone=zone, due_at=due.at, jobs=len(recipients))
        return len(recipients)


def _job(declaration: AnyDeclaration, schedule: Schedule, due: Due, recipient: Recipient) -> NewJob:
    # The label, not the moment: whoever changes zone on the day has had that day's.
    key = f"{declaration.name}@{due.label}/{recipient.owner}"
    envelope = Envelope(
        owner=recipient.owner,
        key=key,
        attempts=declaration.retry.attempts or recipient.attempts,
        share=recipient.share,
    )
    at = due.at + timedelta(seconds=_place(recipient.owner) * schedule.spread_s) if schedule.spread_s else None
    queue = queue_name(declaration.queue, recipient.lane)
    return NewJob(queue=queue, name=declaration.name, envelope=envelope, once_key=key, at=at)


def queue_name(queue: Queue, lane: str | None) -> str:
    """The queue, or the one that a plan keeps for itself: `bulk@enterprise`."""
    return queue.value if lane is None else f"{queue.value}@{lane}"


def _place(owner: str) -> float:
    """0 to 1, always the same for one owner."""
    return int.from_bytes(hashlib.sha256(owner.encode()).digest()[:4], "big") / 2**32


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        log.warning("schedule.unknown_zone", zone=name)
        return ZoneInfo(DEFAULT_ZONE)
