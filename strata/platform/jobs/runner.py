"""Runs one job: opens its scope, calls its handler, and decides what a failure means."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import structlog
from procrastinate import BaseRetryStrategy, JobContext, RetryDecision
from procrastinate.exceptions import JobAborted
from procrastinate.job_context import AbortReason
from procrastinate.jobs import Job
from sqlalchemy.exc import DBAPIError

from strata.platform.database.availability import is_unreachable
from strata.platform.errors import StrataError, UnavailableError
from strata.platform.jobs.declaration import AnyDeclaration, PlatformJob, Refuse, Running, Scope, spread
from strata.platform.jobs.envelope import Envelope
from strata.platform.jobs.queue_client import QueueClient, Trouble
from strata.platform.jobs.services import Services
from strata.platform.redis_link import RedisDownError

log = structlog.get_logger(__name__)

OpenScope = Callable[[Running], AbstractAsyncContextManager[object]]

_LOCK_TIMEOUT = "55P03"
_WEATHER_FIRST_S = 0.5
_WEATHER_LONGEST_S = 60.0
_WEATHER_LASTS_S = 24 * 3600.0


class PutOff(Exception):  # noqa: N818 - what happens to the job, not what went wrong
    """Raised by a scope: not now, through no fault of the job's; does not count as a failure."""

    def __init__(self, code: str, detail: str, *, longest_delay_s: float, lasts_s: float) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.longest_delay_s = longest_delay_s
        self.lasts_s = lasts_s
        """Put off for longer than this, the job is dead."""


class Drop(Exception):  # noqa: N818 - as PutOff
    """Raised by a scope: nobody is left for whom the job could be done."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Again(Exception):  # noqa: N818 - as PutOff
    """Tells Procrastinate to queue the job again."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(delay_s)
        self.at = datetime.now(UTC) + timedelta(seconds=delay_s)


class Dead(Exception):  # noqa: N818 - as PutOff
    """Tells Procrastinate that the job has failed for good; the reason has been noted."""


class AsTheRunnerSays(BaseRetryStrategy):
    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:  # noqa: ARG002
        return RetryDecision(retry_at=exception.at) if isinstance(exception, Again) else None


@asynccontextmanager
async def platform_scope(running: Running, services: Services) -> AsyncIterator[PlatformJob]:
    yield PlatformJob(running, services)


class Runner:
    """Procrastinate calls `run` for every job there is."""

    def __init__(self, queue: QueueClient, scopes: dict[Scope, OpenScope]) -> None:
        self._queue = queue
        self._scopes = scopes

    async def run(self, declaration: AnyDeclaration, context: JobContext, carried: dict[str, Any]) -> None:
        envelope = msgspec.convert(carried, Envelope)
        job = context.job
        running = Running(
            id=job.id or 0,
            name=declaration.name,
            owner=envelope.owner,
            key=envelope.key,
            attempt=job.attempts,
            request_id=envelope.request_id,
        )
        with structlog.contextvars.bound_contextvars(
            job=declaration.name, job_id=running.id, attempt=running.attempt, request_id=envelope.request_id
        ):
            started = time.monotonic()
            try:
                await self._handle(declaration, running, envelope)
            except asyncio.CancelledError:
                if context.abort_reason() is AbortReason.USER_REQUEST:
                    log.info("job.cancelled")
                    raise JobAborted from None
                log.info("job.interrupted")
                raise Again(0) from None
            except Exception as error:
                raise await self._verdict(declaration, running, envelope, error) from error
            # Of the platform's standing jobs, several a minute, only what went wrong is worth a line.
            say = log.debug if declaration.scope is Scope.PLATFORM and declaration.schedule else log.info
            say("job.done", duration_ms=round((time.monotonic() - started) * 1000, 1))

    async def _handle(self, declaration: AnyDeclaration, running: Running, envelope: Envelope) -> None:
        if (declaration.scope is Scope.OWNER) is not bool(envelope.owner):
            raise Refuse("It was queued for another scope than the one it is declared with.")
        try:
            arguments = msgspec.convert(envelope.arguments, declaration.arguments)
        except msgspec.ValidationError as error:
            raise Refuse(f"The arguments are not those the job takes: {error}.") from error
        async with self._scopes[declaration.scope](running) as job, asyncio.timeout(declaration.timeout_s):
            await declaration.handler(job, arguments)

    async def _verdict(
        self, declaration: AnyDeclaration, running: Running, envelope: Envelope, error: Exception
    ) -> Exception:
        match error:
            case Drop(code=code, detail=detail):
                await self._queue.note_trouble(running.id, code, detail, counts=False)
                log.warning("job.dropped", reason=code)
                return JobAborted(detail)
            case PutOff():
                return await self._put_off(running, error)
            case Refuse():
                await self._queue.note_trouble(running.id, "refused", str(error), counts=True)
                log.error("job.refused", detail=str(error))
                return Dead(str(error))
            case _ if _is_weather(error):
                return await self._put_off(running, _weather(error))
            case _:
                return await self._failed(declaration, running, envelope, error)

    async def _put_off(self, running: Running, reason: PutOff) -> Exception:
        trouble = await self._queue.note_trouble(running.id, reason.code, reason.detail, counts=False)
        if trouble.for_s > reason.lasts_s:
            log.error("job.dead", reason=reason.code, put_off=trouble.put_off)
            return Dead(reason.detail)
        delay_s = spread(min(_WEATHER_FIRST_S * 2 ** min(trouble.put_off - 1, 30), reason.longest_delay_s))
        log.warning("job.put_off", reason=reason.code, detail=reason.detail, delay_s=round(delay_s, 1))
        return Again(delay_s)

    async def _failed(
        self, declaration: AnyDeclaration, running: Running, envelope: Envelope, error: Exception
    ) -> Exception:
        code, detail = _said(error, declaration)
        trouble: Trouble = await self._queue.note_trouble(running.id, code, detail, counts=True)
        if trouble.failures >= envelope.attempts:
            log.error("job.dead", reason=code, failures=trouble.failures, exc_info=error)
            return Dead(detail)
        delay_s = declaration.retry.delay_s(trouble.failures)
        log.warning("job.failed", reason=code, failures=trouble.failures, delay_s=round(delay_s, 1), exc_info=error)
        return Again(delay_s)


def _is_weather(error: Exception) -> bool:
    """Whether something the job needs is away, or somebody stands in its way: that says nothing about the job."""
    if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _LOCK_TIMEOUT:
        # The job's own other run, for one, whose worker hangs with the work's mark written and not committed.
        return True
    return isinstance(error, (UnavailableError, RedisDownError, ConnectionError)) or is_unreachable(error)


def _weather(error: Exception) -> PutOff:
    code = error.code if isinstance(error, StrataError) else "unreachable"
    return PutOff(
        code, str(error) or type(error).__name__, longest_delay_s=_WEATHER_LONGEST_S, lasts_s=_WEATHER_LASTS_S
    )


def _said(error: Exception, declaration: AnyDeclaration) -> tuple[str, str]:
    match error:
        case StrataError():
            return error.code, error.detail
        case TimeoutError():
            return "timeout", f"It did not end within {declaration.timeout_s:g} s."
        case _:
            # The type alone: what a library says may hold a tenant's data, which does not belong in the catalog.
            return "error", f"{type(error).__name__}: the log has the rest, under this job's id."
