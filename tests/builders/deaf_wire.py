"""A way to a server on which, once, a COMMIT or its answer is lost: that of the transaction that writes to a table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto

import msgspec
from sqlalchemy import URL

_COMMIT = b"COMMIT"


class Loss(Enum):
    ANSWER_CUT = auto()
    """The server commits; the connection ends before it can say so."""
    ANSWER_SILENT = auto()
    """The server commits; nothing more is heard on a connection that stays open."""
    REQUEST_CUT = auto()
    """The connection ends with the COMMIT on its way: the server rolls back."""
    REQUEST_SILENT = auto()
    """The COMMIT goes astray on a connection that stays open: to the server the transaction does."""


class DeafWire:
    def __init__(self, url: URL, writes_to: str, loss: Loss) -> None:
        self._url = url
        self._mark = f"UPDATE {writes_to} ".encode()
        self._loss = loss
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.lost = 0

    @asynccontextmanager
    async def url(self) -> AsyncIterator[URL]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield self._url.set(host="127.0.0.1", port=self._server.sockets[0].getsockname()[1])
        finally:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._url.host, self._url.port)
        line = _Line()
        for work in (self._forth(reader, there_writer, line, writer), self._back(there_reader, writer, line)):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forth(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, line: _Line, client: asyncio.StreamWriter
    ) -> None:
        try:
            with suppress(ConnectionError):
                while chunk := await source.read(65536):
                    line.marked = line.marked or self._mark in chunk
                    if line.marked and _COMMIT in chunk and not self.lost:
                        self.lost += 1
                        line.deaf = True
                        if self._loss is Loss.REQUEST_CUT:
                            client.close()
                            return
                        if self._loss is Loss.REQUEST_SILENT:
                            await asyncio.Event().wait()
                    sink.write(chunk)
                    await sink.drain()
        finally:
            sink.close()

    async def _back(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, line: _Line) -> None:
        try:
            with suppress(ConnectionError):
                while chunk := await source.read(65536):
                    if line.deaf and self._loss is Loss.ANSWER_SILENT:
                        await asyncio.Event().wait()
                    if line.deaf and self._loss is Loss.ANSWER_CUT:
                        return
                    sink.write(chunk)
                    await sink.drain()
        finally:
            sink.close()


class _Line(msgspec.Struct):
    marked: bool = False
    deaf: bool = False
