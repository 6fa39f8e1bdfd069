"""A tenant's job runs as a request would: in the tenant's context and placement, once, under its name in the logs."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from strata.platform.errors import InvalidInputError
from strata.platform.ids import new_id
from strata.platform.jobs.store import JobState
from strata.runtime import Runtime
from strata.tenancy.errors import UnknownTenantError
from strata.tenancy.model import Tier
from tests.builders.contexts import rename
from tests.builders.jobs import Note, counted, ended, note, on_platform, once, seen, until, working
from tests.builders.platform import Tenantry


@pytest.mark.parametrize("tier", list(Tier))
async def test_a_job_works_in_its_tenant_on_every_tier(runtime: Runtime, tenant_on: Tenantry, tier: Tier) -> None:
    context, other = await tenant_on(tier), await tenant_on(tier)
    async with working(runtime):
        view = await ended(runtime, await runtime.jobs.defer(note, context.id, Note("hello")))
    assert view.state is JobState.SUCCEEDED
    assert await counted(runtime, context, "hello") == 1
    assert await counted(runtime, other, "hello") == 0
    assert seen.jobs[-1].context == context


async def test_its_log_lines_carry_tenant_job_and_the_request_that_asked(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    with structlog.contextvars.bound_contextvars(request_id="r-17"):
        job = await runtime.jobs.defer(note, context.id, Note("logged"))
    async with working(runtime):
        await ended(runtime, job)
    assert seen.log_fields[-1] == {
        "tenant_id": str(context.id), "request_id": "r-17", "job": "tests.note", "job_id": job, "attempt": 0,
    }  # fmt: skip


async def test_a_retry_sees_the_tenant_as_it_is_by_then(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SCHEMA)
    await rename(runtime.catalog_engine, context.id, "Renamed")  # and no cache hears of it
    async with working(runtime):
        job = await runtime.jobs.defer(note, context.id, Note("again", then="break-once"))
        view = await ended(runtime, job)
    assert (view.state, view.attempts, view.failures) == (JobState.SUCCEEDED, 2, 1)
    assert [each.context.name for each in seen.jobs if each.id == job] == [context.name, "Renamed"]


async def test_work_marked_as_done_is_not_done_again(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    async with working(runtime):
        view = await ended(runtime, await runtime.jobs.defer(once, context.id, Note("once", then="break-once")))
        assert (view.state, view.attempts) == (JobState.SUCCEEDED, 2)
        # The same work queued anew, after it was done:
        first = await runtime.jobs.defer(once, context.id, Note("keyed"), once_key="event-1")
        await ended(runtime, first)
        second = await runtime.jobs.defer(once, context.id, Note("keyed"), once_key="event-1")
        await ended(runtime, second)
        twins = [await runtime.jobs.defer(once, context.id, Note("other"), once_key=key) for key in ("a", "b")]
        await asyncio.gather(*(ended(runtime, job) for job in twins))
    assert first != second
    assert await counted(runtime, context, "once") == 1
    assert await counted(runtime, context, "keyed") == 1
    assert await counted(runtime, context, "other") == 2
    assert seen.labels.count("keyed") == 2


async def test_what_waits_under_a_key_is_not_queued_twice(runtime: Runtime, tenant_on: Tenantry) -> None:
    context, other = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED)
    job = await runtime.jobs.defer(note, context.id, Note("x"), once_key="k")
    assert await runtime.jobs.defer(note, context.id, Note("x"), once_key="k") == job
    others = {
        await runtime.jobs.defer(note, other.id, Note("x"), once_key="k"),
        await runtime.jobs.defer(once, context.id, Note("x"), once_key="k"),
        await runtime.jobs.defer_platform(on_platform, Note("x"), once_key="k"),
    }
    assert len(others | {job}) == 4
    assert await runtime.jobs.cancel_once(note, context.id, "k") == 1
    view = await runtime.jobs.status(job)
    assert view is not None
    assert view.state is JobState.CANCELLED
    assert not await runtime.jobs.cancel(job)
    for each in others:
        assert await runtime.jobs.cancel(each)
    with pytest.raises(InvalidInputError, match="once_key"):
        await runtime.jobs.defer(note, context.id, Note("x"), once_key="k" * 200)


async def test_a_running_job_can_be_cancelled(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    async with working(runtime):
        job = await runtime.jobs.defer(note, context.id, Note("held", hold_s=60), once_key="held")
        await until(lambda: "held" in seen.labels)
        assert await runtime.jobs.cancel_once(note, context.id, "held") == 1
        view = await ended(runtime, job)
    assert view.state is JobState.CANCELLED


async def test_many_are_queued_in_one_statement(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    async with working(runtime):
        jobs = await runtime.jobs.defer_many(note, context.id, [Note("many") for _ in range(20)])
        views = [await ended(runtime, job) for job in jobs]
    assert {view.state for view in views} == {JobState.SUCCEEDED}
    assert await counted(runtime, context, "many") == 20


async def test_a_job_for_later_waits_for_its_time(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    async with runtime.catalog_engine.connect() as connection:
        at = await connection.scalar(text("SELECT now() + interval '1 second'"))
    job = await runtime.jobs.defer(note, context.id, Note("later"), at=at)
    async with working(runtime):
        await asyncio.sleep(0.5)
        view = await runtime.jobs.status(job)
        assert view is not None
        assert (view.state, view.due_at) == (JobState.WAITING, at)
        assert (await ended(runtime, job)).state is JobState.SUCCEEDED


async def test_the_platform_s_jobs_have_no_tenant_in_reach(runtime: Runtime) -> None:
    async with working(runtime):
        job = await runtime.jobs.defer_platform(on_platform, Note("platform"))
        assert (await ended(runtime, job)).owner == ""
    assert not hasattr(seen.platform[-1], "tenants")


async def test_no_job_without_one_of_the_two_scopes(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    with pytest.raises(TypeError, match="belongs to the platform"):
        await runtime.jobs.defer(on_platform, context.id, Note())
    with pytest.raises(TypeError, match="belongs to a tenant"):
        await runtime.jobs.defer_platform(note, Note())  # type: ignore[arg-type]
    with pytest.raises(UnknownTenantError):
        await runtime.jobs.defer(note, new_id(), Note())
    bare = text("INSERT INTO jobs.procrastinate_jobs (queue_name, task_name) VALUES ('default', 'tests.note')")
    with pytest.raises(IntegrityError, match="owner_said"):
        async with runtime.catalog_engine.begin() as connection:
            await connection.execute(bare)


async def test_a_job_queued_for_the_wrong_scope_does_not_run(runtime: Runtime) -> None:
    before = len(seen.jobs)
    forged = text(
        "INSERT INTO jobs.procrastinate_jobs (queue_name, task_name, args) VALUES ('default', 'tests.note',"
        " jsonb_build_object('owner', '', 'key', 'k', 'attempts', 1)) RETURNING id"
    )
    async with runtime.catalog_engine.begin() as connection:
        job = await connection.scalar(forged)
    async with working(runtime):
        view = await ended(runtime, job)
    assert (view.state, view.last_code) == (JobState.FAILED, "refused")
    assert len(seen.jobs) == before
