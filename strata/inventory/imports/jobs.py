"""A queued import: one job plans it, then one job a batch, each of which queues the next.

A worker may be killed anywhere. What it had not committed is rolled back and the job runs again; what it had committed
is no longer among the batches. A job that finds its batch gone only sees to it that the next one is queued.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from uuid import UUID

import msgspec
import structlog
from openfeature.client import OpenFeatureClient

from strata.inventory.imports import kept_files, planning, repository
from strata.inventory.imports.ahead import ahead
from strata.inventory.imports.custom_columns import check_custom, opening_values
from strata.inventory.imports.errors import PlanBrokenError
from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.flags import batch_rows
from strata.inventory.imports.home import ensure_bin
from strata.inventory.imports.mapping import Mapping
from strata.inventory.imports.models import UNDER_WAY, ImportState
from strata.inventory.imports.pace import ImportPace
from strata.inventory.imports.planning import Plan
from strata.inventory.imports.poster import Poster, Step
from strata.inventory.imports.repository import Position
from strata.inventory.imports.rows import Interpreter
from strata.inventory.imports.schemas import RunOut
from strata.inventory.imports.survey import Survey, survey
from strata.inventory.quotas import QuotaExceededError
from strata.inventory.settings import custom_fields_in
from strata.platform.errors import BadRequestError, ConflictError, InvalidInputError
from strata.platform.jobs.declaration import NoArguments, Queue, Retry
from strata.platform.jobs.schedules import Daily
from strata.platform.settings import ImportSettings
from strata.tenancy.errors import ConcurrentUpdateError
from strata.tenancy.jobs import JobQueue, TenantJob, tenant_job
from strata.tenancy.plans import plan_held
from strata.tenancy.session import TenantSession

log = structlog.get_logger(__name__)

_ATTEMPTS = 8
_WAITS_HERE_S = 1.0
_LOOK_EVERY_S = 2.0
"""Whether the run that is being read has been cancelled."""
_AT_ONCE_BYTES = 4 * 1024 * 1024
"""Of planned batches in one transaction: a tenant's cut-over waits for it."""
_OF_THE_FILE = (BadRequestError, InvalidInputError, ConflictError, QuotaExceededError)
"""Errors that come again however often one tries, until a person does something."""


class PlanImport(msgspec.Struct, frozen=True):
    import_id: UUID


class PostBatch(msgspec.Struct, frozen=True):
    import_id: UUID
    number: int


class GivenUp(msgspec.Struct, frozen=True):
    import_id: UUID
    died_of: str | None = None
    detail: str | None = None
    number: int | None = None
    """Of the batch; None: it was the plan."""


@tenant_job("inventory.import-given-up", retry=Retry(attempts=_ATTEMPTS))
async def import_given_up(job: TenantJob, arguments: GivenUp) -> None:
    """A job of the import is a dead letter: nobody goes on by himself, so the run is failed, to be resumed by a person."""
    async with job.tenants.transaction(job.context) as session:
        run = await repository.locked(session, arguments.import_id)
        if arguments.number is None:
            stuck = run.state is ImportState.PENDING
        else:
            # Whoever resumed it meanwhile, and got further, needs no word of this.
            left = await planning.first_left(session, run.id)
            stuck = run.state is ImportState.RUNNING and left == arguments.number
        if run.queued and stuck:
            await repository.fail(session, run.id, _reason(arguments))


@tenant_job(
    "inventory.import-plan", queue=Queue.BULK, retry=Retry(attempts=_ATTEMPTS), timeout_s=3600.0, heir=import_given_up
)
async def plan_import(job: TenantJob, arguments: PlanImport) -> None:
    """Read the file to its end and leave batches. Queued again for a run that is planned, it sets its jobs going."""
    async with _failing(job, arguments.import_id):
        async with job.tenants.transaction(job.context) as session:
            run = await repository.locked(session, arguments.import_id)
            if not run.queued:
                return
            mapping = await repository.queued_mapping(session, run)
            if run.state is ImportState.PENDING:
                # The fields may be others than when it was queued.
                check_custom(mapping, custom_fields_in(job.context), opening_stock=run.options.opening_stock)
                await planning.drop(session, run.id)
                await ensure_bin(session, mapping.document.movement, location_limit=job.context.limits.locations)
        if run.state is ImportState.PENDING:
            async with kept_files.fetched(job.tenants, job.context, run.id, run.file_name) as file:
                surveyed = await _surveyed(job, run, file, mapping)
                if surveyed is None:
                    return
                rows = batch_rows(job.services.get(OpenFeatureClient), job.context, job.services.get(ImportSettings))
                position = Position(run.phase, run.checkpoint)
                plan = Plan(file, mapping, surveyed, custom_fields_in(job.context), position, rows)
                await _leave(job, run, plan)
    async with job.tenants.reading(job.context) as session:
        first = await planning.first_left(session, arguments.import_id)
    if first is not None:
        await _defer(job.jobs, job.context.id, PostBatch(arguments.import_id, first))


@tenant_job(
    "inventory.import-batch", queue=Queue.BULK, retry=Retry(attempts=_ATTEMPTS), timeout_s=300.0, heir=import_given_up
)
async def import_batch(job: TenantJob, arguments: PostBatch) -> None:
    started = time.monotonic()
    settled = _Settled()
    async with _failing(job, arguments.import_id):
        settled = await _settle(job, arguments)
    if settled.upcoming is not None:
        pace = job.services.get(ImportPace)
        pause_s = pace.pause_s(job.context.id, worked_s=time.monotonic() - started, transactions=settled.transactions)
        upcoming = PostBatch(arguments.import_id, settled.upcoming)
        if pause_s < _WAITS_HERE_S:
            await asyncio.sleep(pause_s)
            await _defer(job.jobs, job.context.id, upcoming)
        else:
            # Not in a slot of the worker's, which others want.
            await _defer(job.jobs, job.context.id, upcoming, at=datetime.now(UTC) + timedelta(seconds=pause_s))


@tenant_job("inventory.forget-refusals", schedule=Daily(time_of_day(3, 25), spread_s=3600))
async def forget_refusals(job: TenantJob, _arguments: NoArguments) -> None:
    """Lines that imports refused, after as many days as the tenant's plan keeps them."""
    days = plan_held(job.context.plan, job.context.plan_version).retention.import_refusals_days
    if days is None:
        return
    before = datetime.now(UTC) - timedelta(days=days)
    while True:
        async with job.tenants.transaction(job.context) as session:
            if not await repository.forget_refusals(session, before):
                return


JOBS = (plan_import, import_batch, import_given_up, forget_refusals)


async def _defer(jobs: JobQueue, tenant_id: UUID, batch: PostBatch, at: datetime | None = None) -> None:
    await jobs.defer(import_batch, tenant_id, batch, once_key=f"import:{batch.import_id}:{batch.number}", at=at)


async def _surveyed(job: TenantJob, run: RunOut, file: SourceFile, mapping: Mapping) -> Survey | None:
    """None: the run was cancelled while the file was read."""
    reading = asyncio.create_task(asyncio.to_thread(survey, file, mapping, custom_fields_in(job.context)))
    try:
        while not (await asyncio.wait({reading}, timeout=_LOOK_EVERY_S))[0]:
            async with job.tenants.reading(job.context) as session:
                if (await repository.run_by_id(session, run.id)).state is not ImportState.PENDING:
                    return None
        return reading.result()
    finally:
        if not reading.done():
            # Else it would read to the end of the file, and the worker's process could not end before.
            file.give_up()
            await asyncio.gather(reading, return_exceptions=True)


async def _leave(job: TenantJob, run: RunOut, plan: Plan) -> None:
    """The batches, and with the last of them the word that they can be posted."""
    number = 0
    pending: list[bytes] = []
    async with aclosing(ahead(plan.batches())) as planned:
        async for content in planned:
            pending.append(content)
            if sum(map(len, pending)) >= _AT_ONCE_BYTES:
                async with job.tenants.transaction(job.context) as session:
                    if not await _is_ours_to_plan(session, run.id, number):
                        return
                    number = await planning.add(session, run.id, number, pending)
                pending = []
    async with job.tenants.transaction(job.context) as session:
        if await _is_ours_to_plan(session, run.id, number):
            await planning.add(session, run.id, number, pending)
            await kept_files.drop(session, run.id)
            await repository.start(session, run.id, rows=plan.surveyed.rows, queued=True)
            if not number and not pending:
                await repository.finish(session, run.id)


class _Settled(msgspec.Struct, frozen=True):
    upcoming: int | None = None
    """The number of the batch that comes next."""
    transactions: int = 0
    """That the tenant's database has counted."""


async def _settle(job: TenantJob, arguments: PostBatch) -> _Settled:
    async with job.tenants.transaction(job.context) as session:
        # The lock on the run is what a second worker and a cancellation wait for.
        run = await repository.locked(session, arguments.import_id)
        first = await planning.first_left(session, run.id)
        if not run.queued or run.state is not ImportState.RUNNING or first is None or first < arguments.number:
            # Cancelled, failed or done; or the job is left over from a plan that was cancelled.
            return _Settled()
        if first == arguments.number:
            await _post(session, job, run, first)
            first = await planning.first_left(session, run.id)
            if first is None:
                await repository.finish(session, run.id)
        transactions = await repository.transactions_so_far(session)
    return _Settled(first, transactions)


async def _is_ours_to_plan(session: TenantSession, run_id: UUID, left: int) -> bool:
    """Whether the run still waits for a plan, and nobody but us leaves batches.

    Two jobs may plan one run: it was resumed meanwhile, or a worker was taken for dead. Each begins by dropping what
    there is, so whoever does not find what he has left stops, and the other goes on alone.
    """
    run = await repository.locked(session, run_id)
    return run.queued and run.state is ImportState.PENDING and await planning.count(session, run_id) == left


async def _post(session: TenantSession, job: TenantJob, run: RunOut, number: int) -> None:
    planned = await planning.take(session, run.id, number)
    if planned.before != Position(run.phase, run.checkpoint):
        raise PlanBrokenError(run.file_name)
    mapping = await repository.queued_mapping(session, run)
    poster = Poster(
        mapping.document.movement,
        lambda sku: planned.names.get(sku, sku),
        lambda sku: planned.custom.get(sku, {}),
        opening=opening_values(mapping, custom_fields_in(job.context)),
        begins_at=planned.begins_at,
        actor=run.created_by,
        sku_limit=job.context.limits.skus,
    )
    step = Step()
    if planned.rows is not None:
        step = await poster.post(session, planned.rows, Interpreter(mapping, planned.columns))
    elif planned.needed:
        step = await poster.open(session, planned.needed, run.file_name)
    await repository.add_refusals(session, run.id, step.refusals)
    await repository.advance(session, run.id, planned.after, step.gain)


@asynccontextmanager
async def _failing(job: TenantJob, import_id: UUID) -> AsyncIterator[None]:
    """What a person has to mend is written beside the run, and the job is over. The rest is the job engine's to judge."""
    try:
        yield
    except ConcurrentUpdateError:
        raise
    except _OF_THE_FILE as error:
        log.warning("import.failed", import_id=str(import_id), reason=error.code)
        await _record(job, import_id, error.detail)


def _reason(given_up: GivenUp) -> str:
    """What a library's error says is not for the tenant; the log and the dead letter have it."""
    if given_up.detail is None or given_up.died_of in {None, "error"}:
        return "Something went wrong on our side; support sees it. Resume it later."
    return f"It was given up: {given_up.detail} Resume it when that has passed."


async def _record(job: TenantJob, import_id: UUID, failure: str) -> None:
    async with job.tenants.transaction(job.context) as session:
        run = await repository.locked(session, import_id)
        if run.queued and run.state in UNDER_WAY:
            await repository.fail(session, import_id, failure)
