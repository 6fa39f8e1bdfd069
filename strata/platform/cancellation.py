"""Ending tasks for good."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

_AGAIN_AFTER_S = 0.5


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel the tasks, and return when all have ended, however they did.

    Once is not enough: asyncio.wait_for() of Python 3.11 swallows a cancellation that comes together with what it waits
    for, and libraries use it (psycopg_pool, while somebody waits for a connection). A loop that lost it would run on.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_AFTER_S)
    for task in tasks:
        if not task.cancelled():
            # Looked at, so that asyncio does not report it as never retrieved.
            task.exception()
