"""The application as a process of its own, to be killed and started again on the same port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn

from strata.app import create_app
from strata.platform.settings import Settings
from strata.runtime import open_runtime
from tests.builders.command import clean_environment, environment_for
from tests.builders.forked import Forked, forked
from tests.builders.platform import Platform

START_WITHIN_S = 60.0


@asynccontextmanager
async def application(platform: Platform, port: int, **settings: str) -> AsyncIterator[Forked]:
    """Answers when the block begins; killed at its end if it still runs. `settings`: STRATA_USAGE__FLUSH_S="1"."""
    environment = environment_for(platform) | {"STRATA_FENCE__WAIT_S": "30"} | settings
    async with forked(_main, port, environment=clean_environment(environment)) as process:
        async with asyncio.timeout(START_WITHIN_S):
            while not await _listens(port):
                assert process.returncode is None, "the application has ended"
                await asyncio.sleep(0.05)
        yield process


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _main(port: int) -> None:
    async with open_runtime(Settings()) as runtime:
        config = uvicorn.Config(create_app(runtime), port=port, log_config=None, lifespan="off", ws="none")
        await uvicorn.Server(config).serve()
