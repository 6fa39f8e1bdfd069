from __future__ import annotations

import asyncio

from strata.platform.cancellation import end


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
