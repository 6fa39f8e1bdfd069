"""Imports by workers: who does them, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from strata.inventory.imports.jobs import JOBS
from strata.runtime import Runtime
from tests.builders.jobs import working

ENDED_S = 120.0
"""For what hangs: on a machine that is at its limit an import of a second takes most of a minute."""


@asynccontextmanager
async def importing(runtime: Runtime, workers: int = 1) -> AsyncIterator[None]:
    """Workers within this process, which relay events too."""
    async with AsyncExitStack() as stack:
        for _ in range(workers):
            await stack.enter_async_context(working(runtime, jobs=JOBS))
        yield


async def upload(client: httpx.AsyncClient, content: bytes, *, key: str | None = None, **query: str) -> httpx.Response:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 64 * 1024):
            yield content[start : start + 64 * 1024]

    query = {"mapping": "stock-list", **query}
    headers = {"Idempotency-Key": key} if key else {}
    return await client.post("/api/v1/imports", params=query, content=chunks(), headers=headers)


async def seen(
    client: httpx.AsyncClient, address: str, holds: Callable[[dict[str, Any]], bool] | None = None
) -> dict[str, Any]:
    """The import once that holds of it; else once it is over or has failed."""
    async with asyncio.timeout(ENDED_S):
        while True:
            run: dict[str, Any] = (await client.get(address)).json()
            if holds(run) if holds else run["state"] not in {"pending", "running"}:
                return run
            await asyncio.sleep(0.02)
