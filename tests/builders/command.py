"""`strata` as a person runs it: in this process (quick) or as a process of its own (to be killed)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from strata.cli import run
from tests.builders.logs import logging_as_it_was
from tests.builders.platform import Platform

PROGRAM = [sys.executable, "-m", "strata"]
END_WITHIN_S = 60.0


class Said(msgspec.Struct, frozen=True):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401 - whatever the command prints
        """The one JSON document on standard output."""
        [line] = self.out.splitlines()
        return json.loads(line)

    @property
    def error(self) -> dict[str, Any]:
        """The JSON object with which the command ended; before it may stand log lines, and those of workers that it started."""
        said: list[dict[str, Any]] = [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]
        [*_, error] = [each for each in said if "detail" in each and "logger" not in each]
        return error


def environment_for(platform: Platform) -> dict[str, str]:
    return {
        "STRATA_ENVIRONMENT": "test",
        "STRATA_DATABASE_URL": platform.first.dsn(f"{platform.prefix}_catalog"),
        "STRATA_REDIS_URL": platform.redis.url,
        "STRATA_ROLE_PREFIX": platform.prefix,
        "STRATA_DATA_DIR": str(platform.data_dir),
    }


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without whatever the person who runs the tests has set for a Strata of their own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STRATA_")}
    return {**kept, **(extra or {})}


class Command:
    """Runs command lines in this process, in a thread: the command brings an event loop of its own."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    async def __call__(self, *words: str | Path) -> Said:
        self._capture.readouterr()
        with logging_as_it_was():
            code = await asyncio.to_thread(run, [str(word) for word in words])
        said = self._capture.readouterr()
        return Said(code, said.out, said.err)

    async def json(self, *words: str | Path) -> Any:  # noqa: ANN401 - whatever the command prints
        """Run with --json, expect success, return the document."""
        said = await self(*words, "--json")
        assert said.code == 0, said.err or said.out
        return said.document


@asynccontextmanager
async def started(*words: str | Path, env: Mapping[str, str], cwd: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of its own; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *map(str, words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment({"PYTHONPATH": str(Path(__file__).parents[2]), **env}),
        cwd=cwd,
        limit=2**20,
        preexec_fn=_hear_interrupts,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def _hear_interrupts() -> None:
    """A shell that runs the tests in the background has them ignore Ctrl-C, which children inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def ended(process: asyncio.subprocess.Process, *, by: signal.Signals | None = None) -> Said:
    if by is not None:
        process.send_signal(by)
    async with asyncio.timeout(END_WITHIN_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())


class Up:
    """A `strata up --json` of its own, with its servers in a directory of the test's."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []

    async def until(self, event: str, step: str | None = None) -> dict[str, Any]:
        """Read on to the next line of that event; fails when the process ends before it."""
        assert self.process.stdout is not None
        async with asyncio.timeout(END_WITHIN_S):
            while line := await self.process.stdout.readline():
                self.events.append(json.loads(line))
                if self.events[-1]["event"] == event and step in {None, self.events[-1].get("step")}:
                    return self.events[-1]
        said = await ended(self.process)
        pytest.fail(f"strata up ended ({said.code}) before {event}: {said.err[-3000:]}")


@asynccontextmanager
async def up(*options: str | Path, data_dir: Path, env: Mapping[str, str] | None = None) -> AsyncIterator[Up]:
    async with started("up", "--json", "--data-dir", data_dir, *options, env=env or {}, cwd=data_dir.parent) as process:
        yield Up(process)
