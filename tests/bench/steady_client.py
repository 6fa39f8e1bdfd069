"""The load generator of a steady rate: so many requests a second, whether the ones before have been answered or not.

A process of its own, as client.py. Standard input takes one JSON object a line, and each gets one line back:
{"port": …, "requests": [base64, …], "rate": …, "connections": …} begins, {"from_ns": …, "to_ns": …} asks what those
saw who were under way between two moments, {"end": true} stops. What is due while no connection is free is left out, and
counted: behind a server at its limit a queue would grow for as long as the run lasts, and tell nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
import sys
import time
from typing import Any, cast

import msgspec
import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LAST_ANSWERS_S = 40.0
_SHOWN = 300


class Done(msgspec.Struct, frozen=True):
    sent_ns: int
    done_ns: int


class Steady:
    def __init__(self, port: int, requests: list[bytes], rate: int) -> None:
        self._port = port
        self._requests = itertools.cycle(requests)
        self._rate = rate
        self._idle: list[Connection] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._done: list[Done] = []
        self._begun_ns = time.time_ns()
        self._made = 0
        self._stopped = False
        self.answered = 0
        self.left_out = 0
        self.failed: dict[str, int] = {}

    async def begin(self, connections: int) -> None:
        for _ in range(connections):
            await self.connect()
        self._begun_ns = time.time_ns()
        self._tick()

    async def connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: Connection(self), "127.0.0.1", self._port)

    def _tick(self) -> None:
        if self._stopped:
            return
        due = int((time.time_ns() - self._begun_ns) * self._rate / 1e9)
        while self._made < due:
            self._made += 1
            if self._idle:
                self._idle.pop().send(next(self._requests))
            else:
                self.left_out += 1
        asyncio.get_running_loop().call_later(0.5 / self._rate, self._tick)

    def free(self, connection: Connection) -> None:
        self._idle.append(connection)

    def done(self, sent_ns: int, failure: str | None) -> None:
        self._done.append(Done(sent_ns, time.time_ns()))
        if failure is None:
            self.answered += 1
        else:
            self.failed[failure] = self.failed.get(failure, 0) + 1

    def lost(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._stopped:
            task = asyncio.ensure_future(self.connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def window(self, from_ns: int, to_ns: int) -> dict[str, Any]:
        """What was under way at some moment between the two; earlier ones are forgotten."""
        seen = [each for each in self._done if each.done_ns >= from_ns and each.sent_ns <= to_ns]
        self._done = [each for each in self._done if each.done_ns >= from_ns]
        moments = [from_ns, *(each.done_ns for each in seen if each.done_ns <= to_ns), to_ns]
        latencies = sorted(each.done_ns - each.sent_ns for each in seen)
        return {
            "writes": len(seen),
            "longest_ms": latencies[-1] / 1e6 if latencies else 0.0,
            "median_ms": latencies[len(latencies) // 2] / 1e6 if latencies else 0.0,
            "gap_ms": max(after - before for before, after in itertools.pairwise(moments)) / 1e6,
        }

    async def end(self, connections: int) -> dict[str, Any]:
        self._stopped = True
        took_s = (time.time_ns() - self._begun_ns) / 1e9
        until = time.monotonic() + _LAST_ANSWERS_S
        while len(self._idle) < connections and time.monotonic() < until:  # noqa: ASYNC110 - who is busy tells nobody
            await asyncio.sleep(0.05)
        for connection in self._idle:
            connection.close()
        unheard = self._made - self.left_out - self.answered - sum(self.failed.values())
        if unheard:
            self.failed["no answer"] = unheard
        return {
            "answered": self.answered,
            "failed": self.failed,
            "left_out": self.left_out,
            "due": self._made,
            "seconds": took_s,
        }


class Connection(asyncio.Protocol):
    def __init__(self, load: Steady) -> None:
        self._load = load
        self._buffer = b""
        self._sent_ns = 0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # (uvloop's transports are not instances of asyncio's classes.)
        self._transport = cast("asyncio.WriteTransport", transport)
        self._load.free(self)

    def send(self, request: bytes) -> None:
        assert self._transport is not None
        self._sent_ns = time.time_ns()
        self._transport.write(request)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or len(self._buffer) < end + 4 + _length(self._buffer[:end]):
            return
        answer, self._buffer = self._buffer, b""
        failure = None if answer.startswith(b"HTTP/1.1 2") else answer[9:12] + b" " + answer[end + 4 :][:_SHOWN]
        sent_ns, self._sent_ns = self._sent_ns, 0
        self._load.done(sent_ns, None if failure is None else failure.decode("latin-1"))
        self._load.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sent_ns:
            self._load.done(self._sent_ns, f"the server closed the connection ({exc})")
        self._load.lost(self)


def _length(head: bytes) -> int:
    found = _LENGTH.search(head)
    return int(found.group(1)) if found else 0


async def main() -> None:
    loop = asyncio.get_running_loop()
    load: Steady | None = None
    connections = 0
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = msgspec.json.decode(line)
        answer: dict[str, Any] = {}
        if "port" in order:
            connections = order["connections"]
            load = Steady(order["port"], [base64.b64decode(each) for each in order["requests"]], order["rate"])
            await load.begin(connections)
        elif load is not None:
            answer = await load.end(connections) if "end" in order else load.window(order["from_ns"], order["to_ns"])
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
