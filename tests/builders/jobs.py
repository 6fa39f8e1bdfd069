"""Jobs for tests, workers to run them, and what the jobs left behind."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
import structlog
from sqlalchemy import text

from strata.platform.errors import StrataError
from strata.platform.jobs.declaration import AnyDeclaration, PlatformJob, Queue, Refuse, Retry, platform_job
from strata.platform.jobs.store import JobState, JobView
from strata.platform.jobs.worker import JobWorker
from strata.platform.settings import JobSettings
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import MoveInProgressError
from strata.tenancy.jobs import TenantJob, tenant_job
from strata.worker import open_worker

# Quick, so that a test sees in a second what takes half a minute in earnest.
BRISK = JobSettings(heartbeat_s=0.2, stalled_after_s=2.0, poll_s=0.2, tick_s=0.2, stop_timeout_s=3.0)
SOON_S = 20.0


class Note(msgspec.Struct, frozen=True):
    label: str = "note"
    hold_s: float = 0.0
    then: str = ""


class Loss(msgspec.Struct, frozen=True):
    label: str
    died_of: str | None = None
    detail: str | None = None


class BrokenError(StrataError):
    code = "broken"

    def __init__(self) -> None:
        super().__init__("It is broken.")


class Seen:
    """What handlers in this process have seen."""

    def __init__(self) -> None:
        self.jobs: list[TenantJob] = []
        self.log_fields: list[dict[str, object]] = []
        self.platform: list[PlatformJob] = []
        self.labels: list[str] = []
        self.losses: list[Loss] = []
        self.released = asyncio.Event()
        """What long jobs wait for."""
        self.running = 0
        self.most_at_once: dict[str, int] = {}


seen = Seen()

_QUICKLY = Retry(attempts=3, first_delay_s=0.05, longest_delay_s=0.1)
_COUNT = text(
    "INSERT INTO quota (tenant_id, name, used) VALUES (:tenant, :name, 1)"
    " ON CONFLICT (tenant_id, name) DO UPDATE SET used = quota.used + 1"
)


@tenant_job("tests.note", retry=_QUICKLY)
async def note(job: TenantJob, arguments: Note) -> None:
    """Counts its label in the tenant's own rows, waits, and does what `then` says."""
    seen.jobs.append(job)
    seen.log_fields.append(structlog.contextvars.get_contextvars())
    async with job.tenants.transaction(job.context) as session:
        await session.execute(_COUNT, {"tenant": job.context.id, "name": arguments.label})
    seen.labels.append(arguments.label)
    await asyncio.sleep(arguments.hold_s)
    if arguments.then == "refuse":
        raise Refuse("It makes no sense.")
    if arguments.then == "away-once" and seen.labels.count(arguments.label) == 1:
        raise MoveInProgressError(job.context.id, waited_s=5)
    if arguments.then == "break" or (arguments.then == "break-once" and not job.attempt):
        raise BrokenError


@tenant_job("tests.once", retry=_QUICKLY)
async def once(job: TenantJob, arguments: Note) -> None:
    """As `note`, but its work is done once; it may break after that."""
    async with job.tenants.transaction(job.context) as session:
        if await job.first_time(session):
            await session.execute(_COUNT, {"tenant": job.context.id, "name": arguments.label})
    seen.labels.append(arguments.label)
    await asyncio.sleep(arguments.hold_s)
    if arguments.then == "break" or (arguments.then == "break-once" and not job.attempt):
        raise BrokenError


@tenant_job("tests.crowd")
async def crowd(job: TenantJob, arguments: Note) -> None:
    """Looks how many of its tenant run at once."""
    owner = job.running.owner
    seen.running += 1
    seen.most_at_once[owner] = max(seen.running, seen.most_at_once.get(owner, 0))
    await asyncio.sleep(arguments.hold_s)
    seen.running -= 1
    seen.labels.append(arguments.label)


@tenant_job("tests.mourn")
async def mourn(job: TenantJob, arguments: Loss) -> None:
    seen.losses.append(arguments)


@tenant_job("tests.mortal", retry=_QUICKLY, heir=mourn)
async def mortal(job: TenantJob, arguments: Note) -> None:
    seen.labels.append(arguments.label)
    raise BrokenError


@tenant_job("tests.long", queue=Queue.BULK)
async def long(job: TenantJob, arguments: Note) -> None:
    seen.labels.append(arguments.label)
    await seen.released.wait()


@platform_job("tests.platform")
async def on_platform(job: PlatformJob, arguments: Note) -> None:
    seen.platform.append(job)
    seen.labels.append(arguments.label)


JOBS: Sequence[AnyDeclaration] = (note, once, crowd, mourn, mortal, long, on_platform)


@asynccontextmanager
async def working(
    runtime: Runtime,
    settings: JobSettings = BRISK,
    *,
    jobs: Sequence[AnyDeclaration] = JOBS,
    queues: Sequence[str] | None = None,
) -> AsyncIterator[JobWorker]:
    """A worker within this process."""
    worker = open_worker(runtime, settings, jobs=jobs, queues=queues)
    task = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(SOON_S):
            await worker.started.wait()
        yield worker
    finally:
        worker.stop()
        await asyncio.wait([task], timeout=SOON_S)
        # Where it hangs can be seen only now: pytest's own time limit shows no tasks.
        assert task.done(), f"the worker does not stop:\n{_stacks()}"
        await task


def _stacks() -> str:
    shown = io.StringIO()
    for task in asyncio.all_tasks():
        task.print_stack(file=shown)
    return shown.getvalue()


async def ended(runtime: Runtime, job_id: int) -> JobView:
    """Wait until the job is over."""
    async with asyncio.timeout(SOON_S):
        while True:
            view = await runtime.jobs.status(job_id)
            assert view is not None
            if view.state not in {JobState.WAITING, JobState.RUNNING}:
                return view
            await asyncio.sleep(0.02)


async def dead_letter(runtime: Runtime, context: TenantContext, label: str) -> int:
    """A job that has done its work and broken after it as often as it may."""
    job = await runtime.jobs.defer(once, context.id, Note(label, then="break"))
    assert (await ended(runtime, job)).state is JobState.FAILED
    return job


async def counted(runtime: Runtime, context: TenantContext, label: str) -> int:
    """How often a job has counted the label in the tenant's rows."""
    async with runtime.tenants.reading(context) as session:
        found = await session.scalar(text("SELECT used FROM quota WHERE name = :name"), {"name": label})
    return int(found or 0)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not holds():  # noqa: ASYNC110 - what handlers do by and by
            await asyncio.sleep(0.01)


async def until_put_off(runtime: Runtime, job_id: int) -> JobView:
    async with asyncio.timeout(SOON_S):
        while True:
            view = await runtime.jobs.status(job_id)
            assert view is not None
            if view.put_off:
                return view
            await asyncio.sleep(0.02)
