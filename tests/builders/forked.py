"""Processes of the program without the seconds that importing it takes each: one that has imported it forks them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

_FORKS = multiprocessing.get_context("forkserver")
# Everything that the processes below need; it is imported when the first of them is started.
_FORKS.set_forkserver_preload(["strata.moving", "strata.app", "uvicorn"])


class Forked:
    """As much of asyncio's Process as the tests use."""

    def __init__(self, process: multiprocessing.context.ForkServerProcess) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    async def wait(self) -> int:
        await asyncio.to_thread(self._process.join)
        assert self._process.exitcode is not None
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()


@asynccontextmanager
async def forked(
    main: Callable[..., Coroutine[Any, Any, None]], *arguments: object, environment: Mapping[str, str]
) -> AsyncIterator[Forked]:
    """Runs `main`, a function of a module, with this environment and no other; killed at the end of the block if it still runs."""
    made = _FORKS.Process(target=_live, args=(main, arguments, dict(environment)), daemon=True)
    # The first start waits for the imports.
    await asyncio.to_thread(made.start)
    process = Forked(made)
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


def _live(
    main: Callable[..., Coroutine[Any, Any, None]], arguments: tuple[object, ...], environment: dict[str, str]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    asyncio.run(main(*arguments))
