"""Is this process alive, and can it serve?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

log = structlog.get_logger(__name__)

Probe = Callable[[], Awaitable[bool]]
_PROBE_TIMEOUT_S = 2.0
_BELIEVED_FOR_S = 0.5


class Readiness:
    """Probes what the process needs, at most twice a second however many ask."""

    def __init__(self, *, required: Mapping[str, Probe], optional: Mapping[str, Probe]) -> None:
        self._required = dict(required)
        self._optional = dict(optional)
        self._lock = asyncio.Lock()
        self._answer: tuple[bool, bytes] = (False, b"{}")
        self._answered_at = float("-inf")

    async def check(self) -> tuple[bool, bytes]:
        """Whether requests may be sent here, and a JSON document that says what is missing."""
        async with self._lock:
            if time.monotonic() - self._answered_at >= _BELIEVED_FOR_S:
                self._answer = await self._ask()
                self._answered_at = time.monotonic()
        return self._answer

    async def _ask(self) -> tuple[bool, bytes]:
        probes = {**self._required, **self._optional}
        found = dict(zip(probes, await asyncio.gather(*map(_answers, probes.values())), strict=True))
        ready = all(found[name] for name in self._required)
        states = {name: "up" if up else "down" for name, up in found.items()}
        return ready, msgspec.json.encode({"status": "ready" if ready else "not-ready", "checks": states})


def database_probe(engine: AsyncEngine) -> Probe:
    async def probe() -> bool:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        return True

    return probe


async def _answers(probe: Probe) -> bool:
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            return await probe()
    except (OSError, SQLAlchemyError) as error:
        log.warning("readiness.probe_failed", error=f"{type(error).__name__}: {error}")
        return False
