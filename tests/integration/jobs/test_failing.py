"""What becomes of a job that fails, or whose tenant is not to be worked in."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from strata.platform.errors import ConflictError
from strata.platform.jobs.store import JobFilter, JobState, NotDeadError, UnknownJobError
from strata.runtime import Runtime
from strata.tenancy.model import TenantStatus, Tier
from tests.builders.jobs import (
    Loss,
    Note,
    counted,
    dead_letter,
    ended,
    mortal,
    note,
    seen,
    until,
    until_put_off,
    working,
)
from tests.builders.platform import ACTOR, Tenantry


async def test_out_of_attempts_it_is_a_dead_letter_that_says_why(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    async with working(runtime):
        job = await dead_letter(runtime, context, "dead")
    [view] = await runtime.jobs.store.find(JobFilter(state=JobState.FAILED, owner=str(context.id)))
    assert (view.id, view.failures, view.attempts) == (job, 3, 3)
    assert (view.last_code, view.last_detail) == ("broken", "It is broken.")
    assert seen.labels.count("dead") == 3


async def test_a_dead_letter_is_replayed_and_what_it_had_done_stays_done(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    async with working(runtime):
        job = await dead_letter(runtime, context, "replayed")
        await runtime.jobs.store.retry(job)
        assert (await ended(runtime, job)).failures == 3, "it has all its attempts again"
    assert seen.labels.count("replayed") == 6
    assert await counted(runtime, context, "replayed") == 1


async def test_whoever_inherits_is_told_of_a_death_once(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    async with working(runtime):
        job = await runtime.jobs.defer(mortal, context.id, Note("mourned"))
        assert (await ended(runtime, job)).state is JobState.FAILED
        await until(lambda: any(loss.label == "mourned" for loss in seen.losses))
    assert [loss for loss in seen.losses if loss.label == "mourned"] == [Loss("mourned", "broken", "It is broken.")]
    assert seen.labels.count("mourned") == 3


async def test_a_refusal_is_final_at_once(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    async with working(runtime):
        job = await runtime.jobs.defer(note, context.id, Note("refused", then="refuse"))
        view = await ended(runtime, job)
        assert (view.state, view.last_code, view.attempts) == (JobState.FAILED, "refused", 1)
        assert view.last_detail == "It makes no sense."
        await runtime.jobs.store.discard(job)
        with pytest.raises(NotDeadError):
            await runtime.jobs.store.retry(job)
    with pytest.raises(UnknownJobError):
        await runtime.jobs.store.discard(2**40)


async def test_a_replay_is_refused_while_the_same_work_waits(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    async with working(runtime):
        job = await runtime.jobs.defer(note, context.id, Note("twice", then="refuse"), once_key="twice")
        await ended(runtime, job)
    waiting = await runtime.jobs.defer(note, context.id, Note("twice"), once_key="twice")
    with pytest.raises(ConflictError, match="queued already"):
        await runtime.jobs.store.retry(job)
    await runtime.jobs.cancel(waiting)


async def test_a_suspended_tenant_s_job_waits_for_it(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SCHEMA)
    job = await runtime.jobs.defer(note, context.id, Note("suspended"))
    await runtime.directory.set_status(context.slug, TenantStatus.SUSPENDED, "invoice", ACTOR)
    async with working(runtime):
        view = await until_put_off(runtime, job)
        assert (view.last_code, view.failures) == ("tenant-suspended", 0)
        assert "suspended" not in seen.labels
        await runtime.directory.set_status(context.slug, TenantStatus.ACTIVE, None, ACTOR)
        assert (await ended(runtime, job)).state is JobState.SUCCEEDED


async def test_a_long_suspension_does_not_count_against_what_is_away_after_it(
    runtime: Runtime, tenant_on: Tenantry
) -> None:
    context = await tenant_on(Tier.SHARED)
    job = await runtime.jobs.defer(note, context.id, Note("long-suspended", then="away-once"))
    await runtime.directory.set_status(context.slug, TenantStatus.SUSPENDED, "invoice", ACTOR)
    async with working(runtime):
        await until_put_off(runtime, job)
        async with runtime.catalog_engine.begin() as catalog:
            ago = "UPDATE jobs.job_trouble SET since = now() - interval '3 days', put_off = 99 WHERE job_id = :job"
            await catalog.execute(text(ago), {"job": job})
        await runtime.directory.set_status(context.slug, TenantStatus.ACTIVE, None, ACTOR)
        view = await ended(runtime, job)
    assert (view.state, view.last_code) == (JobState.SUCCEEDED, "move-in-progress")
    assert seen.labels.count("long-suspended") == 2


async def test_a_read_only_tenant_s_job_may_read_and_waits_to_write(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    job = await runtime.jobs.defer(note, context.id, Note("read-only"))
    await runtime.directory.set_status(context.slug, TenantStatus.READ_ONLY, "expired", ACTOR)
    async with working(runtime):
        view = await until_put_off(runtime, job)
        assert (view.last_code, view.failures) == ("tenant-read-only", 0)
        await runtime.directory.set_status(context.slug, TenantStatus.ACTIVE, None, ACTOR)
        assert (await ended(runtime, job)).state is JobState.SUCCEEDED
    assert await counted(runtime, context, "read-only") == 1


async def test_a_job_of_a_tenant_that_is_gone_is_dropped(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    job = await runtime.jobs.defer(note, context.id, Note("gone"))
    await runtime.provisioning.delete(context.slug, ACTOR)
    async with working(runtime):
        view = await ended(runtime, job)
    assert (view.state, view.last_code) == (JobState.CANCELLED, "unknown-tenant")
    assert "gone" not in seen.labels
