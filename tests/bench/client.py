"""The load generator: a process of its own that does next to nothing per request.

Raw HTTP/1.1 over keep-alive connections, each sending its next request when the last answer is whole (a closed loop).
Standard input takes one JSON object a line: {"define": name, "port": …, "errands": [[base64, …], …]} or
{"run": name, "connections": …, "seconds": …} or {"run": name, "count": …}; each gets one line back. An errand is one
request, or several that follow each other; where a later body says @0@, the JSON-RPC result of the first goes in. Its
latency is that of all of them together.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import itertools
import re
import sys
import time
from array import array
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_WARM_UP_SHARE = 0.1
_LONGEST_S = 120.0


_PLACEHOLDER = b"@0@"


class Target(msgspec.Struct):
    port: int
    errands: list[list[bytes]]


class RpcAnswer(msgspec.Struct):
    result: msgspec.Raw


class Run:
    """One slice of load: what is asked for next, and what came of it."""

    def __init__(self, target: Target, seconds: float | None, count: int | None) -> None:
        self._errands: Iterator[list[bytes]] = itertools.cycle(target.errands)
        now = time.perf_counter_ns()
        self.counts_from = now + int((seconds or 0) * _WARM_UP_SHARE * 1e9)
        self._until = now + int((seconds or 3600) * 1e9)
        self._left = count if count is not None else sys.maxsize
        self.sent = 0
        self.latencies_ns = array("Q")
        self.refused: dict[str, int] = {}
        self.last_ns = self.counts_from

    def next_errand(self) -> list[bytes] | None:
        if self._left <= 0 or time.perf_counter_ns() >= self._until:
            return None
        self._left -= 1
        self.sent += 1
        return next(self._errands)

    def refuse(self, head: bytes, body: bytes) -> None:
        what = (head[9:12] + b" " + body[:300]).decode("latin-1")
        self.refused[what] = self.refused.get(what, 0) + 1

    def done(self, sent_ns: int, now_ns: int) -> None:
        if sent_ns >= self.counts_from:
            self.latencies_ns.append(now_ns - sent_ns)
            self.last_ns = now_ns


class Connection(asyncio.Protocol):
    def __init__(self, run: Run, done: asyncio.Future[None]) -> None:
        self._run = run
        self._done = done
        self._errand: list[bytes] = []
        self._step = 0
        self._first_result = b""
        self._buffer = b""
        self._sent_ns = 0
        self._finished = False
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # (uvloop's transports are not instances of asyncio's classes.)
        self._transport = cast("asyncio.WriteTransport", transport)
        self._begin()

    def _begin(self) -> None:
        assert self._transport is not None
        errand = self._run.next_errand()
        if errand is None:
            self._finished = True
            self._transport.close()
            return
        self._errand, self._step = errand, 0
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(errand[0])

    def data_received(self, data: bytes) -> None:
        now_ns = time.perf_counter_ns()
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or len(self._buffer) < end + 4 + _length(self._buffer[:end]):
            return
        head, body, self._buffer = self._buffer[:end], self._buffer[end + 4 :], b""
        # A JSON-RPC server says 200 to what went wrong, too.
        if not head.startswith(b"HTTP/1.1 2") or b'"error":' in body:
            self._run.refuse(head, body)
            self._begin()
        elif self._step + 1 < len(self._errand):
            self._go_on(body)
        else:
            self._run.done(self._sent_ns, now_ns)
            self._begin()

    def _go_on(self, body: bytes) -> None:
        assert self._transport is not None
        if self._step == 0:
            self._first_result = bytes(msgspec.json.decode(body, type=RpcAnswer).result)
        self._step += 1
        self._transport.write(_filled(self._errand[self._step], self._first_result))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sent_ns and not self._finished:
            self._run.refused[f"the server closed the connection ({exc})"] = 1
        if not self._done.done():
            self._done.set_result(None)


def _length(head: bytes) -> int:
    found = _LENGTH.search(head)
    return int(found.group(1)) if found else 0


def _filled(template: bytes, result: bytes) -> bytes:
    head, _, body = template.partition(b"\r\n\r\n")
    body = body.replace(_PLACEHOLDER, result)
    return _LENGTH.sub(b"\r\nContent-Length: %d" % len(body), head) + b"\r\n\r\n" + body


async def perform(target: Target, order: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    run = Run(target, order.get("seconds"), order.get("count"))
    ends = [loop.create_future() for _ in range(order.get("connections", 1))]
    for end in ends:
        await loop.create_connection(lambda end=end: Connection(run, end), "127.0.0.1", target.port)  # type: ignore[misc]
    _, pending = await asyncio.wait(ends, timeout=_LONGEST_S)
    if pending:
        run.refused[f"no answer within {_LONGEST_S:.0f} s"] = len(pending)
    return {
        "latencies_ns": list(run.latencies_ns),
        "elapsed_ns": run.last_ns - run.counts_from,
        "refused": run.refused,
        "sent": run.sent,
    }


async def main() -> None:
    targets: dict[str, Target] = {}
    gc.disable()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = msgspec.json.decode(line)
        answer: dict[str, Any] = {}
        if "define" in order:
            errands = [[base64.b64decode(step) for step in errand] for errand in order["errands"]]
            targets[order["define"]] = Target(order["port"], errands)
        else:
            answer = await perform(targets[order["run"]], order)
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
        sys.stdout.flush()
        gc.collect()


if __name__ == "__main__":
    uvloop.run(main())
