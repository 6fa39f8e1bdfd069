"""kill -9 of an application that counts: what is lost is what docs/operating.md says, and nothing counts twice."""

from __future__ import annotations

import asyncio
import time

from strata.platform.embedded.directory import find_free_port
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from strata.tenancy.usage.meters import Meter
from tests.builders.application import application
from tests.builders.platform import Platform, Tenantry
from tests.builders.site import Site

FLUSH_S = 1.0
# A flush takes its time, and the machine may be busy with other tests.
LATE_S = 1.5
ASKS_FOR_S = 6.0


async def test_a_crash_loses_no_more_than_the_stated_seconds(
    runtime: Runtime, platform: Platform, tenant_on: Tenantry
) -> None:
    context = await tenant_on(Tier.SHARED)
    port = find_free_port()
    answered_at: list[float] = []
    async with (
        application(platform, port, STRATA_USAGE__FLUSH_S=str(FLUSH_S)) as process,
        Site(runtime, port).client(context) as client,
    ):
        began = time.monotonic()
        while time.monotonic() - began < ASKS_FOR_S:
            assert (await client.get("/api/v1/stock")).status_code == 200
            answered_at.append(time.monotonic())
            await asyncio.sleep(0.02)
        process.kill()
        killed = time.monotonic()
        await process.wait()
    lines = await runtime.usage.months(context.id)
    counted = {line.meter: line.amount for line in lines}.get(Meter.API_CALLS, 0)
    due = sum(at < killed - FLUSH_S - LATE_S for at in answered_at)
    assert len(answered_at) > due > 50
    assert due <= counted <= len(answered_at)
