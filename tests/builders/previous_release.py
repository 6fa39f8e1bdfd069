"""The code of the release before the newest revision, as a process that serves."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from strata.platform.embedded.directory import find_free_port
from tests.builders.command import clean_environment, environment_for
from tests.builders.platform import Platform

ROOT = Path(__file__).resolve().parents[2]
_READY_WITHIN_S = 90.0
# Only what every release has: a runtime that upgrades nothing, and the application on it.
_SERVE = """
import asyncio, sys, uvicorn
from strata.app import create_app
from strata.platform.settings import Settings
from strata.runtime import open_runtime

async def serve():
    async with open_runtime(Settings()) as runtime:
        await uvicorn.Server(uvicorn.Config(create_app(runtime), port=int(sys.argv[1]), lifespan="off", ws="none")).serve()

asyncio.run(serve())
"""


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


def previous_release() -> str | None:
    """The commit before the one that last changed a revision of cells or tenants; None: no history to ask."""
    paths = ("strata/migrations/cell", "strata/migrations/tenant")
    try:
        if _git("status", "--porcelain", "--", *paths):
            return "HEAD"
        changed = _git("log", "-1", "--format=%H", "--", *paths).decode().strip()
        return _git("rev-parse", "--verify", "--quiet", f"{changed}^").decode().strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def check_out(commit: str, folder: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", commit, "strata"))) as archive:
        archive.extractall(folder, filter="data")
    return folder


@asynccontextmanager
async def serving_release(tree: Path, platform: Platform) -> AsyncIterator[int]:
    """The port on which that code serves the platform's tenants."""
    port = find_free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _SERVE, str(port)),
        cwd=tree,
        env=clean_environment({**environment_for(platform), "PYTHONPATH": str(tree)}),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_READY_WITHIN_S):
            while not await _answers(port):
                await asyncio.sleep(0.05)
                assert process.returncode is None, (await process.communicate())[1].decode()[-3000:]
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
