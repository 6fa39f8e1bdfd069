"""Ending tasks for good, and what is to end by itself first."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine

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


async def through(work: Coroutine[None, None, None], within_s: float) -> None:
    """Run it to its end: who is cancelled meanwhile waits so long for it before that counts."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=within_s)
        raise
    finally:
        task.cancel()
        await asyncio.wait({task})
