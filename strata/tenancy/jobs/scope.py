"""Opens the scope of a tenant's job, and says what a tenant's state means for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import structlog

from strata.platform.errors import StrataError
from strata.platform.jobs.declaration import Running
from strata.platform.jobs.runner import Drop, PutOff
from strata.platform.jobs.services import Services
from strata.tenancy.audit.origin import Origin, acting_for
from strata.tenancy.context import TenantContext
from strata.tenancy.context_cache import ContextCache
from strata.tenancy.errors import (
    ConcurrentUpdateError,
    TenantClosingError,
    TenantReadOnlyError,
    TenantSuspendedError,
    UnknownTenantError,
)
from strata.tenancy.jobs.declaration import TenantJob
from strata.tenancy.jobs.queue import JobQueue
from strata.tenancy.model import TenantStatus
from strata.tenancy.session import Tenants

_LOOK_AGAIN_S = 300.0
"""A suspended tenant's jobs wait for it; this long at most after it is back."""
_WAIT_FOR_S = 30 * 24 * 3600.0
_CONFLICT_DELAY_S = 5.0
_CONFLICTS_FOR_S = 3600.0


class TenantScope:
    def __init__(self, contexts: ContextCache, tenants: Tenants, jobs: JobQueue, services: Services) -> None:
        self._contexts = contexts
        self._tenants = tenants
        self._jobs = jobs
        self._services = services

    @asynccontextmanager
    async def open(self, running: Running) -> AsyncIterator[TenantJob]:
        tenant_id = UUID(running.owner)
        origin = Origin(f"job:{running.name}", request=running.request_id)
        with structlog.contextvars.bound_contextvars(tenant_id=str(tenant_id)), acting_for(lambda: origin):
            try:
                context = await self._context(tenant_id, running)
                yield TenantJob(running, self._services, context, self._tenants, self._jobs)
            except (TenantSuspendedError, TenantReadOnlyError) as error:
                raise _later(error, _LOOK_AGAIN_S, _WAIT_FOR_S) from error
            except ConcurrentUpdateError as error:
                raise _later(error, _CONFLICT_DELAY_S, _CONFLICTS_FOR_S) from error
            except TenantClosingError as error:
                raise Drop(error.code, error.detail) from error
            except UnknownTenantError as error:
                if error.name != str(tenant_id):
                    raise  # the handler asked for another one
                raise Drop(error.code, "The tenant is no longer there.") from error

    async def _context(self, tenant_id: UUID, running: Running) -> TenantContext:
        # What failed may have failed by an old context: a retry reads the catalog.
        context = await (self._contexts.fresh if running.attempt else self._contexts.get_by_id)(tenant_id)
        match context.status:
            case TenantStatus.SUSPENDED:
                raise TenantSuspendedError(tenant_id, context.status_reason)
            case TenantStatus.CLOSING | TenantStatus.CLOSED:
                raise TenantClosingError(tenant_id)
            case _:
                return context


def _later(error: StrataError, longest_delay_s: float, lasts_s: float) -> PutOff:
    return PutOff(error.code, error.detail, longest_delay_s=longest_delay_s, lasts_s=lasts_s)
