"""A process that works on moves and does nothing else: to be killed, stopped and woken."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from strata.moving import keep_moving
from strata.platform.settings import MigratorSettings, Settings
from strata.runtime import open_runtime
from tests.builders.command import clean_environment, environment_for
from tests.builders.forked import Forked, forked
from tests.builders.platform import Platform

END_WITHIN_S = 60.0
QUICK = MigratorSettings(lease_s=1.5, heartbeat_s=0.2, poll_s=0.2)


@asynccontextmanager
async def move_worker(
    platform: Platform, *, faults: str = "", tenant: UUID | None = None, heartbeat_s: float = QUICK.heartbeat_s
) -> AsyncIterator[Forked]:
    """Killed at the end of the block if it still runs. `tenant`: whose move meets the faults; None: whichever is first.
    `heartbeat_s`: how late it may hear that it has lost a move."""
    if tenant is not None:
        faults = faults.replace("=", f"@{tenant}=")
    environment = environment_for(platform) | {
        "STRATA_MIGRATOR__LEASE_S": str(QUICK.lease_s),
        "STRATA_MIGRATOR__HEARTBEAT_S": str(heartbeat_s),
        "STRATA_MIGRATOR__POLL_S": str(QUICK.poll_s),
        "STRATA_MIGRATOR__FAULTS": faults,
    }
    async with forked(_main, environment=clean_environment(environment)) as process:
        yield process


async def has_stopped(process: Forked) -> None:
    """Return when the process has halted itself (SIGSTOP)."""
    async with asyncio.timeout(END_WITHIN_S):
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.05)


def wake(process: Forked) -> None:
    os.kill(process.pid, signal.SIGCONT)


async def _main() -> None:
    async with open_runtime(Settings()) as runtime:
        await keep_moving(runtime)
