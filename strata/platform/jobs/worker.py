"""The worker: Procrastinate's, on a patient connection, with what takes back lost jobs and queues scheduled ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import msgspec
import structlog
from procrastinate import App, JobContext
from procrastinate.exceptions import ConnectorException
from procrastinate.worker import Worker

from strata.platform.cancellation import end
from strata.platform.jobs.connector import PatientConnector
from strata.platform.jobs.declaration import AnyDeclaration, JobRegistry, Scope
from strata.platform.jobs.queue_client import QueueClient
from strata.platform.jobs.runner import AsTheRunnerSays, OpenScope, Runner
from strata.platform.jobs.scheduler import Scheduler
from strata.platform.jobs.store import SCHEMA
from strata.platform.settings import JobSettings

log = structlog.get_logger(__name__)

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0


class Companion(msgspec.Struct, frozen=True):
    """A loop that lives in the worker's process without being a job; begun again when it fails, cancelled at the end."""

    name: str
    run: Callable[[], Awaitable[None]]


class _WakingWorker(Worker):
    def wake(self) -> None:
        """Look for a job: one that was passed over may run now."""
        self._new_job_event.set()


class JobWorker:
    def __init__(
        self,
        catalog_dsn: str,
        registry: JobRegistry,
        scopes: dict[Scope, OpenScope],
        scheduler: Scheduler,
        settings: JobSettings,
        *,
        queues: Sequence[str],
        long_queues: Collection[str] = (),
        companions: Sequence[Companion] = (),
    ) -> None:
        self._settings = settings
        self._connector = PatientConnector(catalog_dsn, schema=SCHEMA, pool_size=settings.pool_size)
        self._queue = QueueClient(
            self._connector,
            queues=queues,
            tasks=[each.name for each in registry],
            heirs=registry.heirs(),
            long_queues=long_queues,
            # One that has long jobs alone, or one slot, keeps none.
            most_long=settings.concurrency - 1 if settings.concurrency > 1 and set(queues) - set(long_queues) else None,
        )
        self._queues = queues
        self._app = App(connector=self._connector)
        self._app.job_manager = self._queue
        runner = Runner(self._queue, scopes)
        for declaration in registry:
            self._app.task(name=declaration.name, pass_context=True, retry=AsTheRunnerSays())(
                _task(runner, declaration)
            )
        self._companions = [
            *companions,
            Companion("scheduler", scheduler.run),
            Companion("reaper", self._take_back_lost),
        ]
        self._worker: _WakingWorker | None = None
        self._stopping = False
        self.started = asyncio.Event()
        self.beginnings = 0
        """How often it was among the workers anew: once, unless others took it for dead."""

    def stop(self) -> None:
        """Take nothing more; what runs may end within `stop_timeout_s`, and is queued again after that."""
        self._stopping = True
        self._connector.hurry()
        if self._worker is not None:
            self._worker.stop()  # type: ignore[no-untyped-call]

    async def run(self) -> None:
        """Until `stop()`; cancelled, it stops in order too."""
        await self._connector.open_async()
        companions = [asyncio.create_task(_kept_alive(each), name=each.name) for each in self._companions]
        try:
            await self._work()
        except asyncio.CancelledError:
            self._connector.hurry()
            raise
        finally:
            await end(companions)
            await self._connector.close_async()

    async def _work(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._stopping:
            self._worker = self._new_worker()
            self._queue.on_freed = self._worker.wake
            self.beginnings += 1
            self.started.set()
            begun = time.monotonic()
            try:
                await self._worker.run()  # type: ignore[no-untyped-call]
            except ConnectorException as error:
                # Its row among the workers was pruned, for one: others took it for dead. It begins again under a new id.
                log.warning("worker.begins_again", reason=str(error.__cause__ or error))
            if time.monotonic() - begun > _LONGEST_PAUSE_S:
                pause_s = _FIRST_PAUSE_S
            if not self._stopping:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _new_worker(self) -> _WakingWorker:
        settings = self._settings
        return _WakingWorker(
            self._app,
            queues=self._queues,
            concurrency=settings.concurrency,
            fetch_job_polling_interval=settings.poll_s,
            abort_job_polling_interval=settings.poll_s,
            shutdown_graceful_timeout=settings.stop_timeout_s,
            install_signal_handlers=False,
            update_heartbeat_interval=settings.heartbeat_s,
            stalled_worker_timeout=settings.stalled_after_s,
        )

    async def _take_back_lost(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            for job in await self._queue.take_back(self._settings.stalled_after_s):
                log.warning("job.taken_back", job=job["task_name"], job_id=job["id"], now=job["status"])
                self._queue.on_freed()


def _task(runner: Runner, declaration: AnyDeclaration) -> Callable[..., Awaitable[None]]:
    async def run(context: JobContext, **carried: Any) -> None:  # noqa: ANN401 - the envelope's members
        await runner.run(declaration, context, carried)

    return run


async def _kept_alive(companion: Companion) -> None:
    pause_s = _FIRST_PAUSE_S
    while True:
        begun = time.monotonic()
        try:
            await companion.run()
        except Exception:
            log.exception("worker.companion_failed", companion=companion.name)
        if time.monotonic() - begun > 2 * _LONGEST_PAUSE_S:
            pause_s = _FIRST_PAUSE_S
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
