"""strata jobs: dead letters are seen, replayed and given up."""

from __future__ import annotations

from strata.platform.jobs.store import JobState
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.command import Command
from tests.builders.jobs import dead_letter, ended, working
from tests.builders.platform import Tenantry


async def test_staff_see_and_replay_dead_letters(runtime: Runtime, tenant_on: Tenantry, strata: Command) -> None:
    context = await tenant_on(Tier.SHARED)
    async with working(runtime):
        jobs = [await dead_letter(runtime, context, f"staff-{n}") for n in range(3)]
    of_tenant = ("--tenant", context.slug)
    listed = await strata.json("jobs", "list", "--state", "failed", *of_tenant)
    assert [each["id"] for each in listed["jobs"]] == jobs[::-1]
    assert {each["last_code"] for each in listed["jobs"]} == {"broken"}
    said = await strata("jobs", "list", *of_tenant)
    assert context.slug in said.out
    assert "It is broken." in said.out

    assert await strata.json("jobs", "discard", str(jobs[0])) == {"discarded": [jobs[0]]}
    assert await strata.json("jobs", "retry", "--all", *of_tenant) == {"retried": jobs[:0:-1]}
    refused = await strata("jobs", "retry", str(jobs[1]), "--json")
    assert (refused.code, refused.error["code"]) == (1, "job-not-failed")
    refused = await strata("jobs", "retry", "--json")
    assert (refused.code, refused.error["code"]) == (1, "which-jobs")
    async with working(runtime):
        assert [(await ended(runtime, job)).state for job in jobs[1:]] == [JobState.FAILED] * 2


async def test_one_that_is_refused_keeps_no_other(runtime: Runtime, tenant_on: Tenantry, strata: Command) -> None:
    context = await tenant_on(Tier.SHARED)
    async with working(runtime):
        jobs = [await dead_letter(runtime, context, f"one-of-{n}") for n in range(2)]
    unknown = 2**62
    refused = await strata("jobs", "discard", str(jobs[0]), str(unknown), str(jobs[1]), "--json")
    assert (refused.code, refused.error["code"]) == (1, "unknown-job")
    assert str(unknown) in refused.error["detail"]
    views = [await runtime.jobs.status(job) for job in jobs]
    assert [view.state for view in views if view] == [JobState.CANCELLED] * 2


async def test_a_number_that_no_job_can_have(strata: Command) -> None:
    for number in ("0", "9" * 30):
        assert (await strata("jobs", "retry", number)).code == 2
