"""A process that works on moves and does nothing else: to be killed, stopped and woken."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from strata.moving import keep_moving
from strata.platform.settings import MigratorSettings, Settings
from strata.runtime import open_runtime
from tests.builders.command import clean_environment, environment_for
from tests.builders.platform import Platform

END_WITHIN_S = 60.0
QUICK = MigratorSettings(lease_s=1.5, heartbeat_s=0.2, poll_s=0.2)


@asynccontextmanager
async def move_worker(platform: Platform, *, faults: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """Killed at the end of the block if it still runs."""
    environment = environment_for(platform) | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "STRATA_MIGRATOR__LEASE_S": str(QUICK.lease_s),
        "STRATA_MIGRATOR__HEARTBEAT_S": str(QUICK.heartbeat_s),
        "STRATA_MIGRATOR__POLL_S": str(QUICK.poll_s),
        "STRATA_MIGRATOR__FAULTS": faults,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.builders.move_worker",
        env=clean_environment(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def has_stopped(process: asyncio.subprocess.Process) -> None:
    """Return when the process has halted itself (SIGSTOP)."""
    async with asyncio.timeout(END_WITHIN_S):
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.05)


def wake(process: asyncio.subprocess.Process) -> None:
    os.kill(process.pid, signal.SIGCONT)


async def _main() -> None:
    async with open_runtime(Settings()) as runtime:
        await keep_moving(runtime)


if __name__ == "__main__":
    asyncio.run(_main())
