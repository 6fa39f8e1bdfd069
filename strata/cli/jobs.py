"""strata jobs …: what waits, what runs, and the dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy.ext.asyncio import AsyncSession

from strata.cli.options import AsJson, DataDir
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.platform.errors import BadRequestError, ConflictError, NotFoundError, StrataError
from strata.platform.jobs.store import JobFilter, JobId, JobState, JobView
from strata.runtime import Runtime
from strata.tenancy.catalog.audit import record

app = typer.Typer(help="Background jobs: what waits, what runs, what has failed for good.", rich_markup_mode=None)

_AT_ONCE = 10_000

Ids = Annotated[
    list[int] | None,
    typer.Argument(metavar="[ID]...", min=1, max=2**63 - 1, help="Numbers, as in strata jobs list."),
]
OfTenant = Annotated[str | None, typer.Option("--tenant", metavar="SLUG", help="Those of this tenant alone.")]
Named = Annotated[str | None, typer.Option("--name", help="Those of this name alone, such as inventory.import-batch.")]
AllFailed = Annotated[bool, typer.Option("--all", help="All that have failed, within --tenant and --name.")]


class WhichJobsError(BadRequestError):
    code = "which-jobs"
    title = "No jobs named"

    def __init__(self) -> None:
        super().__init__("Name jobs by their numbers, or take all that have failed with --all; not both.")


@app.command("list")
def list_jobs(
    state: Annotated[JobState | None, typer.Option(help="Dead letters are «failed».")] = None,
    tenant: OfTenant = None,
    name: Named = None,
    limit: Annotated[int, typer.Option(min=1, max=_AT_ONCE, help="The newest so many.")] = 100,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Jobs, newest first, with what went wrong the last time."""

    async def act(runtime: Runtime) -> tuple[list[JobView], dict[str, str]]:
        jobs = await runtime.jobs.store.find(
            JobFilter(state=state, owner=await _owner(runtime, tenant), name=name, limit=limit)
        )
        return jobs, await _slugs(runtime, jobs)

    jobs, slugs = perform(act, data_dir)
    if as_json:
        print_json({"jobs": jobs})
        return
    print_table(
        ("ID", "NAME", "TENANT", "QUEUE", "STATE", "RUNS", "WHY", "WHEN"),
        ((j.id, j.name, slugs.get(j.owner, j.owner), j.queue, j.state, j.attempts, _why(j), _when(j)) for j in jobs),
        empty="No jobs.",
    )


@app.command("retry")
def retry(
    ids: Ids = None,
    every: AllFailed = False,
    tenant: OfTenant = None,
    name: Named = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Queue dead letters again, with all their attempts. Work they have finished is not done twice."""

    async def act(runtime: Runtime) -> list[JobId]:
        chosen = await _chosen(runtime, ids, every=every, tenant=tenant, name=name)
        return await _each(runtime, "jobs.retry", chosen, runtime.jobs.store.retry)

    _say("retried", perform(act, data_dir), as_json=as_json)


@app.command("discard")
def discard(
    ids: Ids = None,
    every: AllFailed = False,
    tenant: OfTenant = None,
    name: Named = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give dead letters up; they stay in the list as cancelled until they are purged."""

    async def act(runtime: Runtime) -> list[JobId]:
        chosen = await _chosen(runtime, ids, every=every, tenant=tenant, name=name)
        return await _each(runtime, "jobs.discard", chosen, runtime.jobs.store.discard)

    _say("discarded", perform(act, data_dir), as_json=as_json)


async def _chosen(
    runtime: Runtime, ids: list[int] | None, *, every: bool, tenant: str | None, name: str | None
) -> list[JobId]:
    if every == bool(ids) or (ids and (tenant or name)):
        raise WhichJobsError
    if ids:
        return [JobId(each) for each in ids]
    wanted = JobFilter(state=JobState.FAILED, owner=await _owner(runtime, tenant), name=name, limit=_AT_ONCE)
    return [job.id for job in await runtime.jobs.store.find(wanted)]


async def _each(
    runtime: Runtime, action: str, chosen: list[JobId], act: Callable[[JobId], Awaitable[None]]
) -> list[JobId]:
    """One that is refused keeps nobody else from being done; the refusal is said when the rest is done and audited."""
    done: list[JobId] = []
    refusals: list[StrataError] = []
    for job_id in chosen:
        try:
            await act(job_id)
        except (NotFoundError, ConflictError) as refusal:
            refusals.append(refusal)
        else:
            done.append(job_id)
    if done:
        await _audit(runtime, action, done)
    if refusals:
        raise refusals[0]
    return done


async def _owner(runtime: Runtime, slug: str | None) -> str | None:
    return None if slug is None else str((await runtime.contexts.get_by_slug(slug)).id)


async def _slugs(runtime: Runtime, jobs: list[JobView]) -> dict[str, str]:
    slugs = {}
    for owner in Counter(job.owner for job in jobs if job.owner):
        try:
            slugs[owner] = (await runtime.contexts.get_by_id(UUID(owner))).slug
        except StrataError:
            slugs[owner] = owner
    return slugs


async def _audit(runtime: Runtime, action: str, chosen: list[JobId]) -> None:
    async with AsyncSession(runtime.catalog_engine) as session, session.begin():
        record(session, actor(), action, f"{len(chosen)} jobs", detail={"ids": list(chosen[:100])})


def _say(done: str, chosen: list[JobId], *, as_json: bool) -> None:
    if as_json:
        print_json({done: chosen})
    else:
        print_line(f"{done.capitalize()}: {len(chosen)} jobs.")


def _why(job: JobView) -> str:
    return "" if job.last_code is None else f"{job.last_code}: {job.last_detail}"


def _when(job: JobView) -> str:
    return "" if job.last_at is None else job.last_at.strftime("%Y-%m-%d %H:%M:%S")
