"""How a worker takes jobs and gives them back: Procrastinate's job manager, with the statements that must differ.

Taking is fair over owners (`fetch_fairly`, in SQL). Giving back counts only from the worker that still has the job: one
that was taken for dead and woke up again changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from procrastinate.jobs import Job, Notification, Status
from procrastinate.manager import JobManager, NotificationCallback, get_channel_for_queues

from strata.platform.jobs.connector import CatalogAwayError, PatientConnector

log = structlog.get_logger(__name__)

_AGAIN_AFTER_S = 0.2
_MOST_LOSSES = 3
"""A job that has taken so many workers with it is dead: it may well be what kills them."""

_FETCH = """
    SELECT id, status, task_name, priority, lock, queueing_lock, args, scheduled_at, queue_name, attempts, worker_id
    FROM (VALUES (1)) AS always (one)
    LEFT JOIN fetch_fairly(%(queues)s, %(tasks)s, %(worker_id)s, %(after_queue)s, %(after_owner)s) ON true
"""
_GIVE_BACK_UNKNOWN = """
    UPDATE procrastinate_jobs SET status = 'todo', worker_id = NULL
    WHERE status = 'doing' AND worker_id = %(worker_id)s AND id <> ALL (%(held)s::bigint[]) AND NOT abort_requested
    RETURNING id
"""
_OBITUARY = """
    INSERT INTO procrastinate_jobs (queue_name, task_name, priority, args)
    SELECT d.queue_name, h.heir, d.priority, d.args || jsonb_build_object(
            'key', (d.args ->> 'key') || '/died#' || d.id,
            'arguments', (d.args -> 'arguments') || jsonb_build_object('died_of', d.code, 'detail', d.detail))
    FROM dead d JOIN jsonb_each_text(%(heirs)s::jsonb) AS h (task, heir) ON h.task = d.task_name
"""
"""The job that tells the domain of a job's death, queued by the statement by which that dies: neither is without the other."""
_FINISH = f"""
    WITH done AS (
        UPDATE procrastinate_jobs
        SET status = %(status)s::procrastinate_job_status, abort_requested = false, attempts = attempts + 1
        WHERE id = %(id)s AND status = 'doing' AND worker_id = %(worker_id)s
        RETURNING id, queue_name, task_name, priority, args, status
    ), dead AS (
        SELECT d.*, t.code, t.detail FROM done d LEFT JOIN job_trouble t ON t.job_id = d.id WHERE d.status = 'failed'
    ), told AS ({_OBITUARY})
    SELECT id FROM done
"""  # noqa: S608 - of constants
# One that somebody asked to stop does not come back; nor does one whose work is queued a second time by now.
_PUT_BACK = """
    UPDATE procrastinate_jobs j
    SET status = CASE WHEN abort_requested OR EXISTS (
                SELECT 1 FROM procrastinate_jobs o WHERE o.queueing_lock = j.queueing_lock AND o.status = 'todo')
            THEN 'aborted'::procrastinate_job_status ELSE 'todo'::procrastinate_job_status END,
        attempts = attempts + 1, scheduled_at = %(at)s, worker_id = NULL, abort_requested = false
    WHERE id = %(id)s AND status = 'doing' AND worker_id = %(worker_id)s
    RETURNING id
"""
# How long it has lasted is asked of one trouble: a month of suspension says nothing about a cell that is away today.
_NOTE_TROUBLE = """
    INSERT INTO job_trouble AS t (job_id, failures, put_off, code, detail)
    VALUES (%(id)s, %(failed)s, 1 - %(failed)s, %(code)s, %(detail)s)
    ON CONFLICT (job_id) DO UPDATE SET failures = t.failures + excluded.failures,
        put_off = CASE WHEN t.code = excluded.code THEN t.put_off ELSE 0 END + excluded.put_off,
        since = CASE WHEN t.code = excluded.code THEN t.since ELSE now() END, code = excluded.code, detail = excluded.detail, last_at = now()
    RETURNING failures, put_off, EXTRACT(epoch FROM now() - since)::float AS for_s
"""
_TAKE_BACK = f"""
    WITH silent AS (
        SELECT j.id, j.abort_requested, EXISTS (
                SELECT 1 FROM procrastinate_jobs o WHERE o.queueing_lock = j.queueing_lock AND o.status = 'todo'
            ) AS queued_again
        FROM procrastinate_jobs j LEFT JOIN procrastinate_workers w ON w.id = j.worker_id
        WHERE j.status = 'doing'
          AND (w.id IS NULL OR w.last_heartbeat < now() - make_interval(secs => %(silent_s)s))
        FOR UPDATE OF j SKIP LOCKED
    ), noted AS (
        INSERT INTO job_trouble AS t (job_id, lost, code, detail)
        SELECT id, 1, 'worker-lost', 'The worker that ran it died or fell silent.' FROM silent
        ON CONFLICT (job_id) DO UPDATE
            SET lost = t.lost + 1, code = excluded.code, detail = excluded.detail, last_at = now()
        RETURNING job_id, lost, code, detail
    ), taken AS (
        UPDATE procrastinate_jobs j
        SET status = CASE WHEN s.abort_requested OR s.queued_again THEN 'aborted'::procrastinate_job_status
                          WHEN n.lost >= %(most_losses)s THEN 'failed'::procrastinate_job_status
                          ELSE 'todo'::procrastinate_job_status END,
            attempts = attempts + 1, worker_id = NULL, abort_requested = false
        FROM silent s JOIN noted n ON n.job_id = s.id
        WHERE j.id = s.id
        RETURNING j.id, j.queue_name, j.task_name, j.priority, j.args, j.status, n.lost, n.code, n.detail
    ), dead AS (
        SELECT * FROM taken WHERE status = 'failed'
    ), told AS ({_OBITUARY})
    SELECT id, task_name, status::text AS status, lost FROM taken
"""  # noqa: S608 - of constants


class Trouble(msgspec.Struct, frozen=True):
    failures: int
    put_off: int
    for_s: float
    """Since the first of it."""


class QueueClient(JobManager):
    def __init__(
        self,
        connector: PatientConnector,
        *,
        queues: Sequence[str],
        tasks: Sequence[str],
        heirs: Mapping[str, str],
        long_queues: Collection[str] = (),
        most_long: int | None = None,
    ) -> None:
        """`heirs`: by a job's name, the job that is queued when it dies. `most_long`: jobs of the `long_queues` that the
        worker runs at once; None: as many as it runs of any.
        """
        super().__init__(connector)
        self._catalog = connector
        self._queues = list(queues)
        self._tasks = list(tasks)
        self._heirs = json.dumps(heirs)
        self._long_queues = frozenset(long_queues)
        self._most_long = most_long
        self._last_lane = ("", "")
        self._held: dict[int, str] = {}
        """The jobs this worker has, and the queue of each."""
        self._wakes = 0
        self.on_freed: Callable[[], None] = lambda: None
        """Called when a job of this worker is over: its owner's share has a free place."""

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:  # noqa: ARG002 - Procrastinate's
        while True:
            wakes = self._wakes
            job = await self._fetch(worker_id)
            # Procrastinate forgets wake-ups that come while a fetch is under way, though that may have been too early to
            # see what they told of.
            if job is not None or wakes == self._wakes:
                return job

    async def _fetch(self, worker_id: int) -> Job | None:
        queue, owner = self._last_lane
        fetch = {"queues": self._open_queues(), "tasks": self._tasks, "after_queue": queue, "after_owner": owner}
        row = None
        while row is None:
            try:
                [row] = await self._catalog.execute_once(_FETCH, worker_id=worker_id, **fetch)
            except CatalogAwayError:
                await asyncio.sleep(_AGAIN_AFTER_S)
                # The fetch may have been committed without its answer arriving: nobody would ever run that job.
                await self._catalog.execute_query_all_async(
                    _GIVE_BACK_UNKNOWN, worker_id=worker_id, held=list(self._held)
                )
        if row["id"] is None:
            return None
        job = Job.from_row(row)
        self._held[row["id"]] = job.queue
        self._last_lane = (job.queue, str(job.task_kwargs.get("owner", "")))
        return job

    def _open_queues(self) -> list[str]:
        """A slot is kept from long jobs: a short one need not wait for the end of any."""
        long = sum(queue in self._long_queues for queue in self._held.values())
        if self._most_long is None or long < self._most_long:
            return self._queues
        return [queue for queue in self._queues if queue not in self._long_queues]

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:
        del delete_job  # `platform.purge-jobs` does, later
        await self._give_up(job, _FINISH, status=status.value, heirs=self._heirs)

    async def retry_job(
        self,
        job: Job,
        retry_at: datetime | None = None,
        priority: int | None = None,  # noqa: ARG002 - Procrastinate's
        queue: str | None = None,  # noqa: ARG002
        lock: str | None = None,  # noqa: ARG002
    ) -> None:
        later = retry_at is not None and retry_at > datetime.now(UTC)
        await self._give_up(job, _PUT_BACK, at=retry_at if later else None)

    async def note_trouble(self, job_id: int, code: str, detail: str, *, counts: bool) -> Trouble:
        row = await self._catalog.execute_query_one_async(
            _NOTE_TROUBLE, id=job_id, failed=int(counts), code=code, detail=detail
        )
        return msgspec.convert(row, Trouble)

    async def take_back(self, silent_s: float) -> list[dict[str, Any]]:
        """Queue again what workers have that were not heard of for so long.

        Nothing, when the catalog was away in that time: nobody could be heard then, and all get the time to.
        """
        if time.monotonic() - self._catalog.away_at < silent_s:
            return []
        try:
            return await self._catalog.execute_once(
                _TAKE_BACK, silent_s=silent_s, most_losses=_MOST_LOSSES, heirs=self._heirs
            )
        except CatalogAwayError:
            return []

    async def listen_for_jobs(
        self, *, on_notification: NotificationCallback, queues: Iterable[str] | None = None
    ) -> None:
        async def hear(channel: str, payload: str) -> None:
            notification: Notification = json.loads(payload)
            self._wakes += 1
            await on_notification(channel=channel, notification=notification)

        await self._catalog.listen_notify(on_notification=hear, channels=get_channel_for_queues(queues))

    async def _give_up(self, job: Job, statement: str, **parameters: object) -> None:
        rows = await self._catalog.execute_query_all_async(statement, id=job.id, worker_id=job.worker_id, **parameters)
        if job.id is not None:
            self._held.pop(job.id, None)
        if not rows:
            log.warning("job.no_longer_ours", job=job.task_name, job_id=job.id)
        self._wakes += 1
        self.on_freed()
