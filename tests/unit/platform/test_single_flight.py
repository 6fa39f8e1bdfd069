from __future__ import annotations

import asyncio
import contextvars

import pytest

from strata.platform.single_flight import Flight, SingleFlight

WHO = contextvars.ContextVar("WHO", default="nobody")


class Source:
    """Answers 1, 2, 3, ... one for each fetch, when it is let."""

    def __init__(self) -> None:
        self.fetches = 0
        self.gate = asyncio.Event()

    async def __call__(self, flight: Flight[int]) -> int:
        self.fetches += 1
        mine = self.fetches
        await self.gate.wait()
        return mine


async def test_those_who_ask_meanwhile_share_the_answer_and_those_after_do_not() -> None:
    flights, source = SingleFlight[str, int](), Source()
    waiting = [asyncio.create_task(flights.join("k", source)) for _ in range(10)]
    other = asyncio.create_task(flights.join("other", source))
    await asyncio.sleep(0.01)
    source.gate.set()
    assert set(await asyncio.gather(*waiting)) == {1}
    assert await other == 2
    assert await flights.join("k", source) == 3


async def test_whoever_is_cancelled_takes_nobody_along() -> None:
    flights, source = SingleFlight[str, int](), Source()
    leader, follower = (asyncio.create_task(flights.join("k", source)) for _ in range(2))
    await asyncio.sleep(0.01)
    leader.cancel()
    source.gate.set()
    assert await follower == 1
    with pytest.raises(asyncio.CancelledError):
        await leader


async def test_a_failure_reaches_all_and_is_not_kept() -> None:
    flights = SingleFlight[str, int]()

    async def fails(_flight: Flight[int]) -> int:
        await asyncio.sleep(0)
        raise ConnectionError

    results = await asyncio.gather(*(flights.join("k", fails) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionError] * 3
    source = Source()
    source.gate.set()
    assert await flights.join("k", source) == 1


async def test_a_failure_that_nobody_waits_for_any_more_is_no_noise() -> None:
    flights = SingleFlight[str, int]()
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context))

    async def fails(_flight: Flight[int]) -> int:
        await asyncio.sleep(0.01)
        raise ConnectionError

    only = asyncio.create_task(flights.join("k", fails))
    await asyncio.sleep(0)
    only.cancel()
    await asyncio.sleep(0.05)
    asyncio.get_running_loop().set_exception_handler(None)
    assert problems == []


async def test_the_next_flight_begins_after_the_one_under_way_and_is_shared() -> None:
    flights, source = SingleFlight[str, int](), Source()
    under_way = asyncio.create_task(flights.join("k", source))
    await asyncio.sleep(0.01)
    later = [asyncio.create_task(flights.join_next("k", source)) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert source.fetches == 1
    source.gate.set()
    assert await under_way == 1
    assert set(await asyncio.gather(*later)) == {2}
    assert (flights._flights, flights._next) == ({}, {})


async def test_whoever_asks_for_the_next_while_it_has_begun_gets_one_more() -> None:
    flights, source = SingleFlight[str, int](), Source()
    first = asyncio.create_task(flights.join_next("k", source))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(flights.join_next("k", source))
    await asyncio.sleep(0.01)
    source.gate.set()
    assert (await first, await second) == (1, 2)


async def test_a_fetch_runs_in_nobodys_context() -> None:
    flights = SingleFlight[str, str]()

    async def fetch(_flight: Flight[str]) -> str:
        return WHO.get()

    token = WHO.set("the first to ask")
    assert await flights.join("k", fetch) == "nobody"
    WHO.reset(token)


async def test_outdating_reaches_the_flight_under_way() -> None:
    flights = SingleFlight[str, bool]()
    started = asyncio.Event()

    async def fetch(flight: Flight[bool]) -> bool:
        started.set()
        await asyncio.sleep(0.01)
        return flight.outdated

    waiting = asyncio.create_task(flights.join("k", fetch))
    await started.wait()
    flights.outdate("k")
    assert await waiting
    assert not await flights.join("k", fetch)
