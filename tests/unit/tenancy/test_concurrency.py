from __future__ import annotations

import asyncio
import time
from uuid import UUID, uuid4

import pytest

from strata.tenancy.limits.concurrency import Concurrency, Crowd
from strata.tenancy.limits.errors import TooManyAtOnceError
from strata.tenancy.plans import Limits

LIMITS = Limits(concurrent_requests_soft=2, concurrent_requests=4)


def crowded(tenant_id: UUID, *, processes: int = 1, soft_wait_s: float = 60.0) -> tuple[Concurrency, list[Crowd]]:
    """A process in which a tenant has as many requests as the soft limit lets run."""
    concurrency = Concurrency(lambda: processes, soft_wait_s=soft_wait_s)
    crowds = []
    while (crowd := concurrency.enter(tenant_id, LIMITS)) is not None:
        crowds.append(crowd)
    return concurrency, crowds


async def waiting(concurrency: Concurrency, tenant_id: UUID) -> asyncio.Task[Crowd]:
    assert concurrency.enter(tenant_id, LIMITS) is None
    task = asyncio.create_task(concurrency.wait(tenant_id, LIMITS))
    await asyncio.sleep(0)
    return task


async def test_above_the_soft_limit_requests_queue_in_order_and_at_the_hard_one_they_are_refused() -> None:
    tenant_id = uuid4()
    concurrency, running = crowded(tenant_id)
    assert len(running) == 2
    first, second = await waiting(concurrency, tenant_id), await waiting(concurrency, tenant_id)
    assert concurrency.waiting == 2
    with pytest.raises(TooManyAtOnceError) as refused:
        concurrency.enter(tenant_id, LIMITS)
    assert refused.value.status == 429
    assert refused.value.headers["Retry-After"] == "1"
    concurrency.leave(running[0], LIMITS)
    crowd = await first
    assert not second.done()
    concurrency.leave(running[1], LIMITS)
    await second
    for each in (crowd, crowd):
        concurrency.leave(each, LIMITS)
    assert (concurrency.queued, concurrency.let_through, concurrency.refused) == (2, 0, 1)
    assert concurrency.running(tenant_id) == concurrency.waiting == 0


async def test_who_has_waited_long_enough_runs_above_the_soft_limit() -> None:
    tenant_id = uuid4()
    concurrency, running = crowded(tenant_id, soft_wait_s=0.01)
    task = await waiting(concurrency, tenant_id)
    crowd = await task
    assert concurrency.running(tenant_id) == 3
    assert concurrency.let_through == 1
    for each in (*running, crowd):
        concurrency.leave(each, LIMITS)
    assert concurrency.running(tenant_id) == 0


async def test_a_turn_given_in_the_moment_in_which_the_wait_ends_is_no_failure() -> None:
    tenant_id = uuid4()
    concurrency, running = crowded(tenant_id, soft_wait_s=0.01)
    tasks = [await waiting(concurrency, tenant_id) for _ in range(2)]
    # Timers fire and turns are given while the loop could do neither.
    time.sleep(0.03)  # noqa: ASYNC251 - the point of it
    await asyncio.sleep(0)
    for each in running:
        concurrency.leave(each, LIMITS)
    for crowd in await asyncio.gather(*tasks):
        concurrency.leave(crowd, LIMITS)
    assert concurrency.running(tenant_id) == concurrency.waiting == 0


async def test_a_turn_that_nobody_takes_goes_to_the_next() -> None:
    tenant_id = uuid4()
    concurrency, running = crowded(tenant_id)
    gone, next_one = await waiting(concurrency, tenant_id), await waiting(concurrency, tenant_id)
    # The turn is given and the request is given up in the same moment.
    concurrency.leave(running[0], LIMITS)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    await next_one
    assert concurrency.running(tenant_id) == 2
    given_up = await waiting(concurrency, tenant_id)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert concurrency.waiting == 0


async def test_a_process_has_its_share_and_tenants_do_not_count_against_each_other() -> None:
    tenant_id = uuid4()
    concurrency, running = crowded(tenant_id, processes=2)
    assert len(running) == 1
    in_the_queue = await waiting(concurrency, tenant_id)
    with pytest.raises(TooManyAtOnceError):
        concurrency.enter(tenant_id, LIMITS)
    assert concurrency.enter(uuid4(), LIMITS) is not None
    concurrency.leave(running[0], LIMITS)
    await in_the_queue


async def test_without_limits_everybody_runs() -> None:
    concurrency = Concurrency(lambda: 1, soft_wait_s=1.0)
    tenant_id = uuid4()
    crowds = [concurrency.enter(tenant_id, Limits()) for _ in range(500)]
    assert all(crowds)
    assert concurrency.running(tenant_id) == 500
