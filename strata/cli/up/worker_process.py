"""The worker beside `strata up`: a process of its own, so that jobs take no time from requests, begun again when it dies."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
# One that has run for so long is taken for well.
_STEADY_S = 60.0
_STOP_MARGIN_S = 5.0


class WorkerProcess:
    def __init__(self, data_dir: Path, *, as_json: bool, stop_timeout_s: float) -> None:
        self._command = [sys.executable, "-m", "strata", "worker", "--until-eof", "--data-dir", str(data_dir)]
        if as_json:
            self._command.append("--json")
        self._stop_within_s = stop_timeout_s + _STOP_MARGIN_S
        self._process: asyncio.subprocess.Process | None = None

    async def keep(self) -> None:
        """Run one, for as long as nobody cancels; then stop it in order."""
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                begun = time.monotonic()
                code = await (await self._start()).wait()
                if time.monotonic() - begun > _STEADY_S:
                    pause_s = _FIRST_PAUSE_S
                log.warning("worker ended; starting it again", exit_code=code, in_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        finally:
            await self._stop()

    async def _start(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            # Its end closes with this process, however that ends: the worker never outlives it.
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            # Ctrl-C is for us; the worker is stopped when requests are.
            start_new_session=True,
        )
        return self._process

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(self._stop_within_s):
                await process.wait()
        except TimeoutError:
            log.warning("worker did not stop; killing it")
            process.kill()
            await process.wait()
