"""Cancels a coroutine exactly at the n-th await that suspends it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class CancelledAt:
    """`await CancelledAt(work(), 3)`: the third suspension is where the CancelledError arrives."""

    def __init__(self, work: Coroutine[Any, Any, None], step: int) -> None:
        self._work = work
        self._step = step
        self.steps = 0

    def __await__(self) -> Generator[Any, Any, None]:
        inner = self._work.__await__()
        send: Any = None
        error: BaseException | None = None
        while True:
            try:
                waiting = inner.send(send) if error is None else inner.throw(error)
            except StopIteration:
                return
            self.steps += 1
            if self.steps == self._step:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            error = None
            try:
                send = yield waiting
            except BaseException as raised:  # noqa: BLE001 - handed on to the work
                error = raised


async def cancelled_at(work: Coroutine[Any, Any, None], step: int) -> bool:
    """Whether the work was cancelled; False when it ended before that step."""

    async def run() -> None:
        await CancelledAt(work, step)

    task = asyncio.create_task(run())
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False
