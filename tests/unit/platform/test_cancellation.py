from __future__ import annotations

import asyncio

import pytest

from strata.platform.cancellation import end, through


async def swallowing(cancellations: int, heard: list[str]) -> None:
    """As a loop whose library loses some."""
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            heard.append("cancelled")
            if len(heard) > cancellations:
                raise


async def failing() -> None:
    message = "on its own"
    raise RuntimeError(message)


async def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    heard: list[str] = []
    tasks = [asyncio.create_task(each) for each in (swallowing(1, heard), failing(), asyncio.sleep(0))]
    await asyncio.sleep(0.01)
    async with asyncio.timeout(20):
        await end(tasks)
    assert all(task.done() for task in tasks)
    assert len(heard) == 2


async def test_nothing_to_end() -> None:
    await end([])


async def test_who_is_cancelled_meanwhile_goes_through_with_it() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.sleep(0.05)
        ended.set()

    task = asyncio.create_task(through(work(), 10))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_but_not_for_ever() -> None:
    begun, given_up = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            given_up.set()

    task = asyncio.create_task(through(work(), 0.05))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert given_up.is_set()


async def test_what_it_fails_of_is_told() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await through(work(), 1)
