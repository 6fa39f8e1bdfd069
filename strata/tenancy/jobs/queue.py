"""Queues jobs for tenants, on the terms of their plans, and for the platform."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import structlog

from strata.platform.errors import InvalidInputError
from strata.platform.ids import new_id
from strata.platform.jobs.declaration import DEFAULT_ATTEMPTS, Declaration, PlatformJob, Scope
from strata.platform.jobs.envelope import PLATFORM, Envelope
from strata.platform.jobs.scheduler import PLATFORM_RECIPIENT, Recipient, queue_name
from strata.platform.jobs.store import JobId, JobStore, JobView, NewJob
from strata.tenancy.context_cache import ContextCache
from strata.tenancy.plans import plan_named

A = TypeVar("A", bound=msgspec.Struct)

_LONGEST_ONCE_KEY = 150


class JobQueue:
    """Not for use within a tenant's transaction: that may roll back after the job is queued, or commit when the job was
    not. There, emit an event; its consumer queues the job.
    """

    def __init__(self, store: JobStore, contexts: ContextCache) -> None:
        self.store = store
        self._contexts = contexts

    async def defer(
        self,
        declaration: Declaration[Any, A],
        tenant_id: UUID,
        arguments: A,
        *,
        once_key: str | None = None,
        at: datetime | None = None,
        priority: int = 0,
    ) -> JobId:
        """Queue a job of the tenant.

        `once_key` names the work: while a job waits under it no second one is queued (its id is returned), and what one
        has marked as done (`TenantJob.first_time`) a later one does not do again. `priority`: higher first, among the
        tenant's own jobs. Errors: UnknownTenantError, CatalogUnavailableError.
        """
        recipient = await self._recipient(declaration, tenant_id)
        return await self.store.insert_one(_new(declaration, recipient, arguments, once_key, at, priority))

    async def defer_many(
        self, declaration: Declaration[Any, A], tenant_id: UUID, arguments: Sequence[A], *, priority: int = 0
    ) -> list[JobId]:
        """All of them or none, in one statement."""
        recipient = await self._recipient(declaration, tenant_id)
        return await self.store.insert([_new(declaration, recipient, each, None, None, priority) for each in arguments])

    async def defer_platform(
        self,
        declaration: Declaration[PlatformJob, A],
        arguments: A,
        *,
        once_key: str | None = None,
        at: datetime | None = None,
        priority: int = 0,
    ) -> JobId:
        if declaration.scope is not Scope.PLATFORM:
            message = f"{declaration!r} belongs to a tenant: use defer()."
            raise TypeError(message)
        return await self.store.insert_one(_new(declaration, PLATFORM_RECIPIENT, arguments, once_key, at, priority))

    async def status(self, job_id: int) -> JobView | None:
        return await self.store.status(job_id)

    async def cancel(self, job_id: int) -> bool:
        """A waiting job never runs; the task of a running one is cancelled. False: it was over, or is unknown."""
        return await self.store.cancel(job_id)

    async def cancel_once(self, declaration: Declaration[Any, Any], tenant_id: UUID | None, once_key: str) -> int:
        """Cancel what was queued under the key; None: as a platform job. Returns how many jobs that were."""
        owner = PLATFORM if tenant_id is None else str(tenant_id)
        return await self.store.cancel_once(_key(declaration, owner, once_key))

    async def _recipient(self, declaration: Declaration[Any, Any], tenant_id: UUID) -> Recipient:
        if declaration.scope is not Scope.OWNER:
            message = f"{declaration!r} belongs to the platform: use defer_platform()."
            raise TypeError(message)
        context = await self._contexts.get_by_id(tenant_id)
        return recipient_of(tenant_id, context.plan)


def recipient_of(tenant_id: UUID, plan: str) -> Recipient:
    policy = plan_named(plan).jobs
    return Recipient(str(tenant_id), policy.lane, policy.concurrency, policy.attempts)


def _new(
    declaration: Declaration[Any, Any],
    recipient: Recipient,
    arguments: msgspec.Struct,
    once_key: str | None,
    at: datetime | None,
    priority: int,
) -> NewJob:
    once = None if once_key is None else _key(declaration, recipient.owner, once_key)
    envelope = Envelope(
        owner=recipient.owner,
        key=once or str(new_id()),
        attempts=declaration.retry.attempts or recipient.attempts or DEFAULT_ATTEMPTS,
        share=recipient.share,
        request_id=structlog.contextvars.get_contextvars().get("request_id"),
        arguments=msgspec.to_builtins(arguments),
    )
    queue = queue_name(declaration.queue, recipient.lane)
    return NewJob(queue, declaration.name, envelope, priority=priority, once_key=once, at=at)


def _key(declaration: Declaration[Any, Any], owner: str, once_key: str) -> str:
    """Two jobs that follow from one event may go by its id, each for itself."""
    if not 1 <= len(once_key) <= _LONGEST_ONCE_KEY:
        detail = f"A once_key has 1 to {_LONGEST_ONCE_KEY} characters."
        raise InvalidInputError(detail)
    return f"{declaration.name}:{once_key}/{owner}"
