"""A worker of its own process that knows the tests' jobs; servers and settings come from the environment.

Usage: python -m tests.integration.jobs.worker_process
"""

from __future__ import annotations

import asyncio
import signal
import sys

from strata.platform.logging import configure_logging
from strata.platform.settings import Settings
from strata.runtime import open_runtime
from strata.worker import open_worker
from tests.builders.jobs import BRISK, JOBS


async def main() -> None:
    configure_logging("worker")
    async with open_runtime(Settings()) as runtime:
        worker = open_worker(runtime, BRISK, jobs=JOBS)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        running = asyncio.create_task(worker.run())
        await worker.started.wait()
        sys.stdout.write("started\n")
        sys.stdout.flush()
        await running


if __name__ == "__main__":
    asyncio.run(main())
