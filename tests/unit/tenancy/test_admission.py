"""Fairness over tenants when a cell's connections do not suffice."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from strata.tenancy.cell.admission import Admission, CellBusyError
from strata.tenancy.cell.breaker import Breaker
from strata.tenancy.cell.budget import Budget

A, B, C = uuid4(), uuid4(), uuid4()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def admission(capacity: int, *, wait_s: float = 1.0, waiting_limit: int = 100, clock: Clock | None = None) -> Admission:
    return Admission(
        capacity, wait_s=wait_s, waiting_limit=waiting_limit, activity_window_s=10.0, clock=clock or Clock()
    )


def fill(gate: Admission, tenant_id: UUID) -> int:
    count = 0
    while gate.try_admit(tenant_id):
        count += 1
    return count


def test_a_tenant_alone_may_use_everything() -> None:
    assert fill(admission(10), A) == 10


def test_a_flood_leaves_room_for_a_newcomer() -> None:
    gate = admission(10)
    assert gate.try_admit(B)
    gate.release(B)
    # Two were seen lately, so five each; above that, only what the reserve of two leaves.
    assert fill(gate, A) == 8
    assert fill(gate, B) == 2


def test_who_is_not_seen_any_more_takes_no_part_of_the_capacity() -> None:
    clock = Clock()
    gate = admission(10, clock=clock)
    assert gate.try_admit(B)
    gate.release(B)
    clock.now = 21.0
    assert fill(gate, A) == 10


async def test_turns_go_round_over_tenants_not_over_requests() -> None:
    gate = admission(2, wait_s=5.0)
    assert fill(gate, A) == 2
    order: list[UUID] = []

    async def use(tenant_id: UUID) -> None:
        await gate.admit(tenant_id)
        order.append(tenant_id)
        await asyncio.sleep(0)
        gate.release(tenant_id)

    work = [asyncio.create_task(use(A)) for _ in range(50)]
    await asyncio.sleep(0)
    work += [asyncio.create_task(use(B)), asyncio.create_task(use(C))]
    await asyncio.sleep(0)
    gate.release(A)
    gate.release(A)
    await asyncio.gather(*work)
    # Those with nothing in use come before the fifty that began to wait earlier.
    assert {B, C} <= set(order[:4])
    assert (gate.in_use, gate.waiting) == (0, 0)


async def test_waiting_is_bounded_in_time_and_number() -> None:
    gate = admission(1, wait_s=0.02, waiting_limit=1)
    assert gate.try_admit(A)
    first = asyncio.create_task(gate.admit(A))
    await asyncio.sleep(0)
    with pytest.raises(CellBusyError, match="1 requests wait"):
        await gate.admit(B)
    with pytest.raises(CellBusyError, match="busy") as refusal:
        await first
    assert (refusal.value.status, refusal.value.headers) == (503, {"Retry-After": "1"})
    gate.release(A)
    assert gate.try_admit(B)


async def test_a_flood_that_fills_the_queue_does_not_turn_its_neighbour_away() -> None:
    gate = admission(2, wait_s=5.0, waiting_limit=5)
    assert fill(gate, A) == 2
    flood = [asyncio.create_task(gate.admit(A)) for _ in range(5)]
    await asyncio.sleep(0)
    neighbour = asyncio.create_task(gate.admit(B))
    await asyncio.sleep(0)
    assert gate.waiting == 5
    with pytest.raises(CellBusyError, match="5 requests wait"):
        await flood[-1]
    with pytest.raises(CellBusyError):
        await gate.admit(A)
    gate.release(A)
    await asyncio.wait_for(neighbour, 1)
    for each in flood:
        each.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    gate.release(A)
    gate.release(B)
    assert (gate.in_use, gate.waiting) == (0, 0)


async def test_a_turn_that_comes_in_the_moment_of_a_cancellation_is_not_lost() -> None:
    gate = admission(1)
    assert gate.try_admit(A)
    waiting = asyncio.create_task(gate.admit(B))
    behind = asyncio.create_task(gate.admit(C))
    await asyncio.sleep(0)
    gate.release(A)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.wait_for(behind, 1)
    gate.release(C)
    assert (gate.in_use, gate.waiting) == (0, 0)


async def test_a_cancelled_waiter_is_passed_over() -> None:
    gate = admission(1)
    assert gate.try_admit(A)
    waiting = asyncio.create_task(gate.admit(B))
    await asyncio.sleep(0)
    waiting.cancel()
    gate.release(A)
    await asyncio.gather(waiting, return_exceptions=True)
    assert (gate.in_use, gate.waiting) == (0, 0)


def test_the_breaker_opens_after_three_failures_and_lets_one_try() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(3):
        assert breaker.lets_through()
        breaker.failed()
    assert not breaker.lets_through()
    clock.now = 0.3
    assert breaker.lets_through()
    assert not breaker.lets_through(), "one is trying already"
    breaker.failed()
    clock.now = 0.6
    assert not breaker.lets_through(), "the pause has doubled"
    clock.now = 0.9
    assert breaker.lets_through()
    breaker.undecided()
    assert breaker.lets_through()
    breaker.succeeded()
    assert not breaker.is_open
    assert breaker.lets_through()


def test_the_breaker_never_pauses_for_long() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(2000):
        if breaker.lets_through():
            breaker.failed()
        clock.now += 0.1
    clock.now += 5.1
    assert breaker.lets_through()


def test_many_who_fail_together_do_not_lengthen_the_breakers_pause() -> None:
    """A server that restarts under load refuses all at once; it is asked again as soon as if three had failed."""
    clock = Clock()
    breaker = Breaker(clock)
    together = [breaker.lets_through() for _ in range(20)]
    for _ in together:
        breaker.failed()
    clock.now = 0.3
    assert all(together)
    assert breaker.lets_through()


async def test_a_spent_budget_takes_what_lies_idle_longest() -> None:
    budget = Budget(2)
    dropped: list[str] = []

    def drop(name: str) -> None:
        dropped.append(name)
        budget.busy(name)
        budget.give()

    await budget.take(1.0)
    await budget.take(1.0)
    budget.idle("old", lambda: drop("old"))
    budget.idle("new", lambda: drop("new"))
    await budget.take(1.0)
    assert dropped == ["old"]
    assert budget.open == 2


async def test_a_spent_budget_waits_a_while() -> None:
    budget = Budget(1)
    await budget.take(1.0)
    with pytest.raises(CellBusyError):
        await budget.take(0.01)
    waiting = asyncio.create_task(budget.take(1.0))
    await asyncio.sleep(0)
    budget.give()
    await waiting
    assert budget.open == 1
