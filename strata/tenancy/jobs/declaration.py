"""@tenant_job, and what its handler gets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from sqlalchemy import text

from strata.platform.jobs.declaration import Declaration, Job, Queue, Retry, Scope
from strata.platform.jobs.schedules import Schedule
from strata.tenancy.context import TenantContext
from strata.tenancy.jobs.queue import JobQueue
from strata.tenancy.session import Tenants, TenantSession

A = TypeVar("A", bound=msgspec.Struct)

_MARK = text(
    """
    INSERT INTO job_run (tenant_id, key, job) VALUES (:tenant, :key, :job)
    ON CONFLICT (tenant_id, key) DO NOTHING
    RETURNING true
    """
)


class TenantJob(Job, frozen=True):
    context: TenantContext
    tenants: Tenants
    jobs: JobQueue

    async def first_time(self, session: TenantSession, key: str | None = None) -> bool:
        """Whether this work has not been done before; marks it as done, in the transaction that does it.

        A job runs at least once: its worker may die between the work's commit and the queue's word of it. `key` names
        one of several steps of a job that takes a transaction each. A second run at the same time waits here until the
        first has committed or failed.
        """
        mark = self.key if key is None else f"{self.key}#{key}"
        parameters = {"tenant": self.context.id, "key": mark, "job": self.running.name}
        return bool(await session.scalar(_MARK, parameters))


def tenant_job(
    name: str,
    *,
    queue: Queue = Queue.DEFAULT,
    retry: Retry = Retry(),  # noqa: B008 - frozen
    timeout_s: float = 900.0,
    schedule: Schedule | None = None,
    heir: Declaration[TenantJob, Any] | None = None,
) -> Callable[[Callable[[TenantJob, A], Awaitable[None]]], Declaration[TenantJob, A]]:
    """Declare a job that is done for one tenant.

    With a `schedule` it is queued for every active tenant, in the tenant's own time zone. `timeout_s` bounds one run.
    When it has become a dead letter, by failures, by being put off too long or with its worker, the `heir` is queued: a job
    that takes the same arguments and, if it names them, `died_of` (a code) and `detail`.
    """

    def declare(handler: Callable[[TenantJob, A], Awaitable[None]]) -> Declaration[TenantJob, A]:
        return Declaration(
            name,
            handler,
            scope=Scope.OWNER,
            queue=queue,
            retry=retry,
            timeout_s=timeout_s,
            schedule=schedule,
            heir=heir,
        )

    return declare
