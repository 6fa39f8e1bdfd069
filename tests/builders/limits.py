"""Rate limiters as processes have them, on a Redis of the test's choice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from strata.platform.redis_link import RedisLink
from strata.platform.settings import LimitSettings
from strata.tenancy.limits.errors import RateExceededError
from strata.tenancy.limits.rates import RateLimiter
from strata.tenancy.plans import Limits

# Generous: a busy test machine must not look like a Redis that is slow.
PATIENT = LimitSettings(redis_patience_s=5.0)


class LimitingProcess:
    def __init__(self, url: str, settings: LimitSettings) -> None:
        self.link = RedisLink(url, timeout_s=5.0)
        # A link subscribes to something.
        self.link.listen("strata:tests", lambda _: None)
        self.rates = RateLimiter(self.link, settings)

    async def admitted(self, tenant_id: UUID, limits: Limits, *, subject: str = "key", asked: int) -> int:
        """How many of so many requests, one after the other, get in."""
        admitted = 0
        for _ in range(asked):
            allowance = self.rates.allowance(tenant_id, subject, limits)
            assert allowance is not None
            try:
                await self.rates.spend(allowance)
            except RateExceededError:
                continue
            admitted += 1
        return admitted


@asynccontextmanager
async def limiting_process(url: str, settings: LimitSettings = PATIENT) -> AsyncIterator[LimitingProcess]:
    process = LimitingProcess(url, settings)
    await process.link.start()
    try:
        yield process
    finally:
        await process.rates.close()
        await process.link.close()
