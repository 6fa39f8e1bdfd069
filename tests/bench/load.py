"""Drives the load generator, and says what a slice of load came to."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.bench.machine import ROOT


class RequestsRefusedError(Exception):
    """A measured server answered something else than success: whatever was timed was not the work."""


class Slice(msgspec.Struct, frozen=True):
    """A short stretch of load on one subject."""

    latencies_ns: list[int]
    elapsed_ns: int
    refused: dict[str, int]
    sent: int


class LoadGenerator:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.client"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(10)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def define(self, name: str, port: int, errands: Sequence[bytes | Sequence[bytes]]) -> None:
        """What `run` will ask for under this name, one after the other and round again (see client.py on errands)."""
        steps = [[errand] if isinstance(errand, bytes) else errand for errand in errands]
        encoded = [[base64.b64encode(step).decode() for step in errand] for errand in steps]
        self._ask({"define": name, "port": port, "errands": encoded})

    def run(self, name: str, *, connections: int, seconds: float, may_refuse: bool = False) -> Slice:
        order = {"run": name, "connections": connections, "seconds": seconds}
        return self._performed(name, order, may_refuse=may_refuse)

    def count(self, name: str, count: int, *, connections: int = 1) -> Slice:
        """Exactly `count` requests, however long they take."""
        return self._performed(name, {"run": name, "connections": connections, "count": count})

    def _performed(self, name: str, order: dict[str, Any], *, may_refuse: bool = False) -> Slice:
        done = msgspec.convert(self._ask(order), Slice)
        if done.refused and not may_refuse:
            message = f"{name}: {sum(done.refused.values())} requests refused, such as {next(iter(done.refused))}"
            raise RequestsRefusedError(message)
        return done

    def _ask(self, order: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(order).decode() + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            message = "the load generator has died"
            raise RuntimeError(message)
        return msgspec.json.decode(line)


def http_request(
    method: str, path: str, host: str, *, headers: dict[str, str] | None = None, body: bytes = b""
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
