"""Many jobs of one tenant do not keep another waiting, and none has more running than its plan allows."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from strata.platform.jobs.store import JobState
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.jobs import BRISK, Note, crowd, ended, long, note, seen, until, working
from tests.builders.platform import Tenantry, second_process

FLOOD = 10_000
HOLD_S = 0.02
A_SECOND_OF_THE_FLOOD = 50
"""Its jobs, as many as one place does in a second: the same bound on a machine that is slow or busy with other things."""
FORGET = text("DELETE FROM jobs.procrastinate_jobs WHERE args ->> 'owner' = :owner")


async def forget(runtime: Runtime, owner: object) -> None:
    async with runtime.catalog_engine.begin() as connection:
        await connection.execute(FORGET, {"owner": str(owner)})


@pytest.mark.parametrize("concurrency", [1, pytest.param(10, marks=pytest.mark.slow)])
async def test_a_flood_delays_another_tenant_s_job_by_less_than_a_second(
    runtime: Runtime, tenant_on: Tenantry, concurrency: int
) -> None:
    """With one place each both workers are always taken by the flood; with ten its tenant's share leaves room."""
    flooding, waiting = await tenant_on(Tier.SCHEMA, plan="business"), await tenant_on(Tier.SHARED)
    settings = BRISK.model_copy(update={"concurrency": concurrency})
    await runtime.jobs.defer_many(crowd, flooding.id, [Note("flood", hold_s=HOLD_S)] * FLOOD)
    try:
        async with (
            second_process(runtime) as other,
            working(runtime, settings),
            working(other, settings),
        ):
            done = seen.labels.count("flood")
            await until(lambda: seen.labels.count("flood") > done + 20)
            for _ in range(5):
                before = len(seen.labels)
                job = await runtime.jobs.defer(note, waiting.id, Note("single"))
                assert (await ended(runtime, job)).state is JobState.SUCCEEDED
                single = seen.labels.index("single", before)
                assert seen.labels[before:single].count("flood") < A_SECOND_OF_THE_FLOOD
            assert seen.labels.count("flood") - done < FLOOD / 2, "the flood was still there"
    finally:
        await forget(runtime, flooding.id)


async def test_tenants_take_turns(runtime: Runtime, tenant_on: Tenantry) -> None:
    """Three tenants' jobs, queued one tenant after the other, are done in turns."""
    tenants = [await tenant_on(Tier.SHARED, plan="business") for _ in range(3)]
    for tenant in tenants:
        await runtime.jobs.defer_many(note, tenant.id, [Note(f"turn/{tenant.slug}")] * 5)
    async with working(runtime, BRISK.model_copy(update={"concurrency": 1})):
        await until(lambda: sum(label.startswith("turn/") for label in seen.labels) == 15)
    order = [label for label in seen.labels if label.startswith("turn/")]
    rounds = [set(order[start : start + 3]) for start in range(0, 15, 3)]
    assert all(len(each) == 3 for each in rounds)


async def test_long_jobs_leave_a_slot_to_short_ones(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenants = [await tenant_on(Tier.SHARED) for _ in range(3)]
    seen.released.clear()
    async with working(runtime, BRISK.model_copy(update={"concurrency": 2})):
        longs = [await runtime.jobs.defer(long, each.id, Note(f"long/{each.slug}")) for each in tenants]
        await until(lambda: any(label.startswith("long/") for label in seen.labels))
        short = await runtime.jobs.defer(note, tenants[0].id, Note("short"))
        assert (await ended(runtime, short)).state is JobState.SUCCEEDED
        assert sum(label.startswith("long/") for label in seen.labels) == 1
        seen.released.set()
        for job in longs:
            assert (await ended(runtime, job)).state is JobState.SUCCEEDED


async def test_within_a_tenant_priority_goes_before_age(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    last = 0
    for label, priority in (("rank-low", -1), ("rank-first", 0), ("rank-second", 0), ("rank-high", 5)):
        last = await runtime.jobs.defer(note, tenant.id, Note(label), priority=priority)
    async with working(runtime, BRISK.model_copy(update={"concurrency": 1})):
        await ended(runtime, last)
        await until(lambda: "rank-low" in seen.labels)
    order = [label for label in seen.labels if label.startswith("rank-")]
    assert order == ["rank-high", "rank-first", "rank-second", "rank-low"]


async def test_no_more_run_at_once_than_the_plan_allows_over_all_workers(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED, plan="starter")
    seen.running = 0
    jobs = await runtime.jobs.defer_many(crowd, tenant.id, [Note("crowd", hold_s=0.01)] * 60)
    async with second_process(runtime) as other, working(runtime), working(other):
        for job in jobs:
            await ended(runtime, job)
    assert seen.most_at_once[str(tenant.id)] == 2


async def test_a_plan_with_queues_of_its_own_can_have_workers_of_its_own(runtime: Runtime, tenant_on: Tenantry) -> None:
    heavy, light = await tenant_on(Tier.SHARED, plan="enterprise"), await tenant_on(Tier.SHARED)
    theirs = await runtime.jobs.defer(note, heavy.id, Note("heavy"))
    ours = await runtime.jobs.defer(note, light.id, Note("light"))
    async with working(runtime, queues=["default@enterprise"]):
        view = await ended(runtime, theirs)
        assert view.queue == "default@enterprise"
        waiting = await runtime.jobs.status(ours)
        assert waiting is not None
        assert waiting.state is JobState.WAITING
    async with working(runtime):
        await ended(runtime, ours)
