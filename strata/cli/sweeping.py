"""Clearing up after processes that died, before a command makes more; from then on the job `tenancy.sweep` does it."""

from __future__ import annotations

import structlog

from strata.tenancy.provisioning.tenants import Provisioning

log = structlog.get_logger(__name__)


async def sweep_once(provisioning: Provisioning) -> list[str]:
    """Never fails: what cannot be swept now, on a server that is down for one, is swept another time."""
    try:
        return await provisioning.sweep()
    except Exception:
        log.exception("sweep failed; it is tried again")
        return []
