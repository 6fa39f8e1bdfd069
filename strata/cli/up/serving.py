"""Uvicorn within a process that does other things too: signals are ours, and so is the word when it is ready."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import uvicorn
from litestar.types import ASGIApp

from strata.platform.errors import ConfigurationError, UnavailableError

# Requests under way get this long to finish, once; a second Ctrl-C cuts it short.
DRAIN_S = 10
_READY_WITHIN_S = 30.0
_ASK_EVERY_S = 0.02
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not uvicorn's: its handlers would end the process by the signal again, before the servers are stopped."""
        yield


class Stopping:
    """The first signal while setting up cancels; while serving it drains, and a second one stops draining."""

    def __init__(self) -> None:
        self.asked = False
        self._server: _Server | None = None
        self._work: asyncio.Task[None] | None = None

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end, or to its cleaned-up end when a signal comes."""
        loop = asyncio.get_running_loop()
        for each in _SIGNALS:
            # nohup has a process outlive its terminal by ignoring SIGHUP; that is to be left so.
            if each is not signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN:
                loop.add_signal_handler(each, self.ask)
        self._work = asyncio.create_task(work)
        try:
            await self._work
        except asyncio.CancelledError:
            if not self.asked:
                raise

    def ask(self) -> None:
        if self._server is not None:
            if self._server.should_exit:
                self._server.force_exit = True
            self._server.should_exit = True
        elif not self.asked and self._work is not None:
            self._work.cancel()
        self.asked = True

    async def serve(self, app: ASGIApp, reserved: socket.socket, on_ready: Callable[[], None]) -> None:
        """Serve until a signal; `on_ready` is called when /readyz says yes over the port itself."""
        server = _Server(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="on",
                # Logging is configured already, and every request is logged by our own edge.
                log_config=None,
                access_log=False,
                # X-Forwarded-* is read by routing, which knows the trusted proxies.
                proxy_headers=False,
                server_header=False,
                # Longer than a proxy in front keeps a connection that it does not use (nginx: 60 s): it would send a
                # request down one that is just being closed, and nobody knows then whether it was carried out.
                timeout_keep_alive=75,
                timeout_graceful_shutdown=DRAIN_S,
            )
        )
        self._server = server
        async with AsyncExitStack() as stack:
            announcing = asyncio.create_task(_announce(server, reserved, on_ready))
            stack.push_async_callback(ended, announcing)
            try:
                await server.serve(sockets=[reserved])
            except SystemExit:
                message = "The application did not start: its log, just above, says why."
                raise ConfigurationError(message) from None


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel what is still running; what failed by itself is told."""
    if not task.done():
        task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def _announce(server: _Server, reserved: socket.socket, on_ready: Callable[[], None]) -> None:
    host, port = reserved.getsockname()[:2]
    try:
        async with asyncio.timeout(_READY_WITHIN_S):
            # Uvicorn has no event to wait for, and readiness is asked for over the port itself.
            while not (server.started and await _is_ready(_reachable(host), port)):  # noqa: ASYNC110
                await asyncio.sleep(_ASK_EVERY_S)
        on_ready()
    except TimeoutError:
        server.should_exit = True
        message = f"The application was not ready after {_READY_WITHIN_S:.0f} s: strata doctor says what is wrong."
        raise UnavailableError(message) from None
    except BaseException:
        server.should_exit = True
        raise


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


async def _is_ready(host: str, port: int) -> bool:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    finally:
        writer.close()
