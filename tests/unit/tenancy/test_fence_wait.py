"""Waiting for a cut-over, at moments that no database can be made to hit."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from strata.platform.ids import new_id
from strata.platform.settings import FenceSettings
from strata.tenancy.cell.fence_wait import FenceWait
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Placement, TenantStatus, Tier

TENANT = new_id()


class Catalog:
    """Knows one tenant, which stays where it is."""

    def __init__(self) -> None:
        placement = Placement(cell="cell-1", tier=Tier.SHARED, schema_name="shared", epoch=1)
        self.context = TenantContext(
            id=TENANT,
            slug="acme",
            name="Acme",
            status=TenantStatus.ACTIVE,
            status_reason=None,
            plan="starter",
            parent_id=None,
            version=1,
            placement=placement,
        )

    async def fresh(self, tenant_id: UUID) -> TenantContext:
        assert tenant_id == TENANT
        return self.context


async def at_once(_context: TenantContext) -> bool:
    return True


async def test_a_cancellation_that_comes_together_with_the_opening_is_heard() -> None:
    """wait_for() would swallow it on Python 3.11, and a request or a worker that was told to stop would go on."""
    catalog = Catalog()
    fence = FenceWait(catalog, at_once, FenceSettings())
    waiter = asyncio.create_task(fence.wait(catalog.context))
    await asyncio.sleep(0)
    [prober] = [task for task in asyncio.all_tasks() if task.get_name() == f"fence-{TENANT}"]
    prober.add_done_callback(lambda _: waiter.cancel())
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert prober.result() is catalog.context
