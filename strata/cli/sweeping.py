"""Clearing up after processes that died: tenants half made or half deleted."""

from __future__ import annotations

import asyncio

import structlog

from strata.tenancy.provisioning.tenants import Provisioning

log = structlog.get_logger(__name__)

SWEEP_EVERY_S = 10.0


async def sweep_once(provisioning: Provisioning) -> list[str]:
    """Never fails: what cannot be swept now, on a server that is down for one, is swept another time."""
    try:
        return await provisioning.sweep()
    except Exception:
        log.exception("sweep failed; it is tried again")
        return []


async def keep_sweeping(provisioning: Provisioning) -> None:
    while True:
        await asyncio.sleep(SWEEP_EVERY_S)
        await sweep_once(provisioning)
