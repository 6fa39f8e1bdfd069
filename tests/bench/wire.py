"""Counts round trips on the wire: a TCP proxy between an application and its server.

A round trip begins whenever the client sends after the server has spoken (or first). How many messages or packets
travel in one direction before the other answers makes no difference: pipelining is one, chatter is many.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class CountingProxy:
    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.round_trips = 0
        self.connections = 0

    @property
    def port(self) -> int:
        assert self._server is not None
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream)
        self._writers |= {writer, upstream_writer}
        server_spoke = True

        async def forth() -> None:
            nonlocal server_spoke
            while data := await reader.read(65536):
                if server_spoke:
                    self.round_trips += 1
                    server_spoke = False
                upstream_writer.write(data)
                await upstream_writer.drain()

        async def back() -> None:
            nonlocal server_spoke
            while data := await upstream_reader.read(65536):
                server_spoke = True
                writer.write(data)
                await writer.drain()

        _, pending = await asyncio.wait(
            [asyncio.create_task(forth()), asyncio.create_task(back())], return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.cancel()
        for each in (writer, upstream_writer):
            each.close()
            self._writers.discard(each)
