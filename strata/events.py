"""The composition of events: which there are, who is told, and the relay that tells them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from strata.inventory.aggregates import consumer as aggregates
from strata.inventory.alerts import consumer as alerts
from strata.inventory.events import EVENTS as INVENTORY_EVENTS
from strata.inventory.imports import consumer as imports
from strata.inventory.imports.events import EVENTS as IMPORT_EVENTS
from strata.inventory.usage import MEASURES
from strata.platform.errors import ConfigurationError
from strata.platform.redis_link import RedisLink
from strata.runtime import Runtime
from strata.tenancy.events.bell import Ear
from strata.tenancy.events.consumers import Consumer
from strata.tenancy.events.relay import Relay
from strata.tenancy.events.remainders import Outboxes
from strata.tenancy.events.types import EVENTS as TENANCY_EVENTS
from strata.tenancy.events.types import Event
from strata.tenancy.events.usage import Usage

EVENTS: tuple[type[Event], ...] = (*TENANCY_EVENTS, *INVENTORY_EVENTS, *IMPORT_EVENTS)


def consumers(runtime: Runtime) -> tuple[Consumer, ...]:
    return (
        aggregates.CONSUMER,
        alerts.CONSUMER,
        Usage(runtime.catalog_engine, MEASURES).consumer(),
        imports.consumer(runtime.jobs),
    )


@asynccontextmanager
async def relaying(runtime: Runtime, told: Sequence[Consumer] | None = None) -> AsyncIterator[Relay]:
    """Relay within the block, from every cell whose lease is to be had. `told`: None for all consumers there are."""
    if runtime.settings.redis_url is None:
        message = "The relay does not know Redis: set STRATA_REDIS_URL."
        raise ConfigurationError(message)
    link = RedisLink(runtime.settings.redis_url.get_secret_value(), timeout_s=runtime.settings.cache.redis_timeout_s)
    relay = Relay(
        runtime.catalog_url,
        runtime.registry,
        Outboxes(runtime.catalog_engine, runtime.registry),
        runtime.tenants,
        runtime.contexts,
        consumers(runtime) if told is None else told,
        Ear(link),
        runtime.settings.events,
    )
    async with relay.running():
        yield relay


async def relay(runtime: Runtime) -> None:
    """Relay until cancelled: what a worker does beside its jobs."""
    async with relaying(runtime):
        await asyncio.Event().wait()
