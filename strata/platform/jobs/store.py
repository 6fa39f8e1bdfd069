"""The queue as the rest of the program sees it: put jobs in, look at them, call them back. On the catalog's own engine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from enum import StrEnum
from typing import NewType

import msgspec
from sqlalchemy import Row, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.types import BigInteger

from strata.platform.errors import ConflictError, NotFoundError
from strata.platform.jobs.envelope import Envelope

SCHEMA = "jobs"
"""Where Procrastinate's tables are, in the catalog's database."""

JobId = NewType("JobId", int)


class JobState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """A dead letter: out of attempts, kept until somebody retries or discards it."""
    CANCELLED = "cancelled"


_STATUSES = {
    JobState.WAITING: ("todo",),
    JobState.RUNNING: ("doing",),
    JobState.SUCCEEDED: ("succeeded",),
    JobState.FAILED: ("failed",),
    JobState.CANCELLED: ("cancelled", "aborted", "aborting"),
}
_STATES = {status: state for state, statuses in _STATUSES.items() for status in statuses}


class NewJob(msgspec.Struct, frozen=True):
    queue: str
    name: str
    envelope: Envelope
    priority: int = 0
    once_key: str | None = None
    at: datetime | None = None


class JobView(msgspec.Struct, frozen=True):
    id: JobId
    name: str
    queue: str
    owner: str
    """Empty: the platform's."""
    state: JobState
    attempts: int
    key: str
    due_at: datetime | None
    failures: int = 0
    put_off: int = 0
    lost: int = 0
    last_code: str | None = None
    last_detail: str | None = None
    last_at: datetime | None = None


class JobFilter(msgspec.Struct, frozen=True):
    state: JobState | None = None
    owner: str | None = None
    name: str | None = None
    ids: tuple[int, ...] | None = None
    limit: int = 100


class UnknownJobError(NotFoundError):
    code = "unknown-job"
    title = "No such job"

    def __init__(self, job_id: int) -> None:
        super().__init__(f"There is no job {job_id}; old ones are forgotten: strata jobs list shows what there is.")


class NotDeadError(ConflictError):
    code = "job-not-failed"
    title = "Job has not failed"

    def __init__(self, job_id: int, state: JobState) -> None:
        super().__init__(f"Job {job_id} is {state.value}; only one that has failed can be retried or discarded.")


_INSERT = text(
    """
    INSERT INTO jobs.procrastinate_jobs (queue_name, task_name, priority, queueing_lock, args, scheduled_at)
    SELECT queue, name, priority, once_key, envelope, at
    FROM jsonb_to_recordset(CAST(:jobs AS jsonb))
        AS new (queue text, name text, priority integer, once_key text, envelope jsonb, at timestamptz)
    ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING
    RETURNING id
    """
)
_WAITING_UNDER = text("SELECT id FROM jobs.procrastinate_jobs WHERE queueing_lock = :key AND status = 'todo'")
_VIEW = """
    SELECT j.id, j.task_name, j.queue_name, j.args ->> 'owner' AS owner, CAST(j.status AS text) AS status, j.attempts,
           j.args ->> 'key' AS key, j.scheduled_at, t.failures, t.put_off, t.lost, t.code, t.detail, t.last_at
    FROM jobs.procrastinate_jobs j LEFT JOIN jobs.job_trouble t ON t.job_id = j.id
"""
_LIST = text(
    _VIEW
    + """
    WHERE (CAST(:statuses AS text[]) IS NULL OR CAST(j.status AS text) = ANY (CAST(:statuses AS text[])))
      AND (CAST(:owner AS text) IS NULL OR j.args ->> 'owner' = :owner)
      AND (CAST(:name AS text) IS NULL OR j.task_name = :name)
      AND (CAST(:ids AS bigint[]) IS NULL OR j.id = ANY (CAST(:ids AS bigint[])))
    ORDER BY j.id DESC LIMIT :limit
    """
).bindparams(bindparam("ids", type_=ARRAY(BigInteger)))
_CANCEL = text("SELECT jobs.procrastinate_cancel_job_v1(:id, true, false)")
_CANCEL_ONCE = text(
    """
    SELECT count(jobs.procrastinate_cancel_job_v1(id, true, false)) FROM jobs.procrastinate_jobs
    WHERE (status = 'todo' AND queueing_lock = :key) OR (status = 'doing' AND args ->> 'key' = :key)
    """
)
_RETRY = text(
    """
    WITH dead AS (
        UPDATE jobs.procrastinate_jobs j SET status = 'todo', scheduled_at = NULL, worker_id = NULL
        WHERE id = :id AND status = 'failed'
          AND NOT EXISTS (SELECT 1 FROM jobs.procrastinate_jobs o
              WHERE o.queueing_lock = j.queueing_lock AND o.status = 'todo')
        RETURNING id, queue_name
    ), forgiven AS (
        UPDATE jobs.job_trouble SET failures = 0, put_off = 0, lost = 0, since = now()
        WHERE job_id IN (SELECT id FROM dead)
    )
    SELECT pg_notify(channel, CAST(json_build_object('type', 'job_inserted', 'job_id', id) AS text))
    FROM dead, LATERAL (VALUES ('procrastinate_any_queue_v1'), ('procrastinate_queue_v1#' || queue_name)) AS c (channel)
    """
)
_DISCARD = text(
    "UPDATE jobs.procrastinate_jobs SET status = 'cancelled' WHERE id = :id AND status = 'failed' RETURNING id"
)
# By the events' own order, which is that of time: no index on it is needed. Jobs that were retried have newer events.
_PURGE = text(
    """
    DELETE FROM jobs.procrastinate_jobs WHERE id IN (
        SELECT e.job_id FROM jobs.procrastinate_events e JOIN jobs.procrastinate_jobs j ON j.id = e.job_id
        WHERE e.at < :before AND CAST(j.status AS text) = ANY (CAST(:statuses AS text[]))
          AND NOT EXISTS (
              SELECT 1 FROM jobs.procrastinate_events n WHERE n.job_id = j.id AND n.at >= :before)
        ORDER BY e.id LIMIT :most)
    """
)
_LAST_HEARTBEAT = text("SELECT max(last_heartbeat) FROM jobs.procrastinate_workers")


class JobStore:
    def __init__(self, catalog: AsyncEngine) -> None:
        self._catalog = catalog

    async def insert(self, jobs: Sequence[NewJob], connection: AsyncConnection | None = None) -> list[JobId]:
        """Queue the jobs; one whose `once_key` waits already is left out. With a connection: in its transaction."""
        if not jobs:
            return []
        async with self._within(connection) as current:
            ids = await current.scalars(_INSERT, {"jobs": msgspec.json.encode(jobs).decode()})
            return [JobId(each) for each in ids]

    async def insert_one(self, job: NewJob) -> JobId:
        """The new job, or the one that waits under the same `once_key`."""
        while True:
            async with self._catalog.begin() as connection:
                ids = await self.insert([job], connection)
                if ids:
                    return ids[0]
                waiting = await connection.scalar(_WAITING_UNDER, {"key": job.once_key})
            if waiting is not None:
                return JobId(waiting)
            # It was taken by a worker in between: the next round queues this one.

    async def status(self, job_id: int) -> JobView | None:
        found = await self.find(JobFilter(ids=(job_id,)))
        return found[0] if found else None

    async def find(self, wanted: JobFilter) -> list[JobView]:
        """Newest first."""
        parameters = {
            "statuses": None if wanted.state is None else list(_STATUSES[wanted.state]),
            "owner": wanted.owner,
            "name": wanted.name,
            "ids": None if wanted.ids is None else list(wanted.ids),
            "limit": wanted.limit,
        }
        async with self._catalog.connect() as connection:
            return [_view(row) for row in await connection.execute(_LIST, parameters)]

    async def cancel(self, job_id: int) -> bool:
        """A waiting job never runs; a running one is asked to stop. False: it was over, or is unknown."""
        async with self._catalog.begin() as connection:
            return await connection.scalar(_CANCEL, {"id": job_id}) is not None

    async def cancel_once(self, once_key: str) -> int:
        async with self._catalog.begin() as connection:
            return int(await connection.scalar(_CANCEL_ONCE, {"key": once_key}) or 0)

    async def retry(self, job_id: int) -> None:
        """Queue a dead letter again, with all its attempts. What it has marked as done stays done."""
        async with self._catalog.begin() as connection:
            if (await connection.execute(_RETRY, {"id": job_id})).first() is None:
                raise await self._why_not(job_id)

    async def discard(self, job_id: int) -> None:
        async with self._catalog.begin() as connection:
            if (await connection.execute(_DISCARD, {"id": job_id})).first() is None:
                raise await self._why_not(job_id)

    async def purge(self, states: Sequence[JobState], before: datetime, *, most: int = 5000) -> int:
        """Forget jobs that ended before; one batch, so that no transaction grows long."""
        statuses = [status for state in states for status in _STATUSES[state]]
        async with self._catalog.begin() as connection:
            result = await connection.execute(_PURGE, {"before": before, "statuses": statuses, "most": most})
            return result.rowcount

    async def last_heartbeat(self) -> datetime | None:
        """When a worker was last heard of; None when all have stopped in order, or there has never been one."""
        async with self._catalog.connect() as connection:
            seen: datetime | None = await connection.scalar(_LAST_HEARTBEAT)
            return seen

    async def _why_not(self, job_id: int) -> NotFoundError | ConflictError:
        job = await self.status(job_id)
        if job is None:
            return UnknownJobError(job_id)
        if job.state is JobState.FAILED:
            return ConflictError(f"The same work as job {job_id} is queued already; discard this one.")
        return NotDeadError(job_id, job.state)

    def _within(self, connection: AsyncConnection | None) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._catalog.begin() if connection is None else nullcontext(connection)


def _view(row: Row[tuple[object, ...]]) -> JobView:
    return JobView(
        id=row.id,
        name=row.task_name,
        queue=row.queue_name,
        owner=row.owner,
        state=_STATES[row.status],
        attempts=row.attempts,
        key=row.key,
        due_at=row.scheduled_at,
        failures=row.failures or 0,
        put_off=row.put_off or 0,
        lost=row.lost or 0,
        last_code=row.code,
        last_detail=row.detail,
        last_at=row.last_at,
    )
