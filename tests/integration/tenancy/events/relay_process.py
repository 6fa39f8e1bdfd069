"""A relay to be killed: a process of its own, that stops in the middle of whatever it is asked to.

Usage: python -m tests.integration.tenancy.events.relay_process WHERE (the settings come as JSON on standard input)
WHERE: nowhere, or after-effect (the effect is written, the transaction still open), or before-acknowledgement.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import msgspec
import structlog
from pydantic import SecretStr

from strata.events import relaying
from strata.inventory.aggregates import consumer as aggregates
from strata.platform.settings import Environment, Settings
from strata.runtime import open_runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.events.consumers import Consumer, OutsideConsumer, TenantConsumer
from strata.tenancy.events.types import Delivery
from strata.tenancy.session import TenantSession
from tests.builders.events import until


async def main(where: str) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    given = msgspec.json.decode(sys.stdin.read(), type=dict[str, str])
    settings = Settings(
        environment=Environment.TEST,
        database_url=SecretStr(given["database_url"]),
        redis_url=SecretStr(given["redis_url"]),
        role_prefix=given["role_prefix"],
        data_dir=given["data_dir"],  # type: ignore[arg-type]
    )
    async with open_runtime(settings) as runtime, relaying(runtime, _consumers(where)) as relay:
        await until(lambda: given["cell"] in relay.relaying, "the lease is missing")
        _say("relaying")
        await asyncio.Event().wait()


def _consumers(where: str) -> list[Consumer]:
    async def then_stop(session: TenantSession, deliveries: Sequence[Delivery]) -> None:
        await aggregates.CONSUMER.handle(session, deliveries)
        if where == "after-effect":
            await _stop()

    async def stop(_context: TenantContext, _deliveries: Sequence[Delivery]) -> None:
        if where == "before-acknowledgement":
            await _stop()

    return [
        TenantConsumer(aggregates.NAME, aggregates.CONSUMER.events, then_stop),
        OutsideConsumer("test.stop", aggregates.CONSUMER.events, stop),
    ]


async def _stop() -> None:
    _say("stopped")
    await asyncio.Event().wait()


def _say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
