"""Refused lines are kept for as many days as the tenant's plan says."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from strata.inventory.imports import repository
from strata.inventory.imports.jobs import forget_refusals
from strata.platform.jobs.declaration import NoArguments
from strata.platform.jobs.store import JobState
from strata.platform.paging import Paging
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.imports import imported, stock_list
from tests.builders.jobs import ended, working
from tests.builders.platform import Tenantry


async def refused(runtime: Runtime, context: TenantContext, tmp_path: Path, *, ended_days_ago: int) -> None:
    await imported(runtime, context, stock_list(tmp_path / f"{context.slug}.csv", ["A,A,1", "B,B,none"]))
    async with runtime.tenants.transaction(context) as session:
        await session.execute(
            text("UPDATE import_run SET finished_at = now() - make_interval(days => :days)"), {"days": ended_days_ago}
        )


async def left(runtime: Runtime, context: TenantContext) -> int:
    async with runtime.tenants.reading(context) as session:
        [run] = (await repository.list_runs(session, Paging())).items
        return len((await repository.list_refusals(session, run.id, Paging())).items)


async def test_they_go_after_the_days_of_the_plan(runtime: Runtime, tenant_on: Tenantry, tmp_path: Path) -> None:
    free, paid, largest = [
        await tenant_on(Tier.SHARED, plan=plan) for plan in ("free", "starter", "enterprise")
    ]  # kept for 30 days, for 90, for good
    for context, days in ((free, 31), (paid, 31), (largest, 3000)):
        await refused(runtime, context, tmp_path, ended_days_ago=days)
    async with working(runtime, jobs=[forget_refusals]):
        for context in (free, paid, largest):
            job = await runtime.jobs.defer(forget_refusals, context.id, NoArguments())
            assert (await ended(runtime, job)).state is JobState.SUCCEEDED
    assert [await left(runtime, context) for context in (free, paid, largest)] == [0, 1, 1]
