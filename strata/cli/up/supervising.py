"""Looks after the servers that `strata up` started: one that dies is reaped, told of, and started again where it was."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from strata.platform.embedded import EmbeddedPostgres, EmbeddedRedis
from strata.platform.errors import StrataError, UnavailableError

log = structlog.get_logger(__name__)

Server = EmbeddedPostgres | EmbeddedRedis

LOOK_EVERY_S = 0.5
MOST_TRIES = 5
# One that has run for so long since the last try is taken for well: its tries are forgotten.
STEADY_S = 60.0
_FIRST_PAUSE_S = 0.5


class ServerKeepsDyingError(UnavailableError):
    code = "server-keeps-dying"
    title = "A server keeps dying"

    def __init__(self, server: Server) -> None:
        super().__init__(
            f"The embedded server {server.name} died again after {MOST_TRIES} tries to start it: "
            f"{server.directory.log_file} says why; mend that, then run strata up again."
        )


async def supervise(servers: Sequence[Server], on_giving_up: Callable[[], None]) -> None:
    """Until cancelled. When a server cannot be kept alive: calls `on_giving_up`, then fails with the reason."""
    try:
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(_keep(server))
    except BaseExceptionGroup as errors:
        log.error("giving up", reason=str(errors.exceptions[0]))  # noqa: TRY400 - the traceback says nothing more
        on_giving_up()
        raise


async def _keep(server: Server) -> None:
    tries, last_try = 0, -STEADY_S
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        if server.running:
            continue
        if time.monotonic() - last_try > STEADY_S:
            tries = 0
        if tries == MOST_TRIES:
            raise ServerKeepsDyingError(server)
        log.warning("server died; starting it again", server=server.name, exit_code=server.exit_code, tries=tries)
        if tries:
            await asyncio.sleep(_FIRST_PAUSE_S * 2 ** (tries - 1))
        tries += 1
        await _start_again(server)
        last_try = time.monotonic()


async def _start_again(server: Server) -> None:
    starting = asyncio.create_task(asyncio.to_thread(server.start))
    try:
        # The thread cannot be cancelled: whoever stops the servers next must find it done.
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait([starting])
        raise
    except (StrataError, OSError) as error:
        log.error("server did not start", server=server.name, reason=str(error))  # noqa: TRY400 - it is tried again
    else:
        log.warning("server is back", server=server.name, port=server.port, pid=server.pid)
