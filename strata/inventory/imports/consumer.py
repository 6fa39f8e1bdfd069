"""Sets workers to an import that was queued."""

from __future__ import annotations

from collections.abc import Sequence

from strata.inventory.imports.events import ImportQueued
from strata.inventory.imports.jobs import PlanImport, plan_import
from strata.tenancy.context import TenantContext
from strata.tenancy.events.consumers import OutsideConsumer
from strata.tenancy.events.types import Delivery
from strata.tenancy.jobs import JobQueue


def consumer(jobs: JobQueue) -> OutsideConsumer:
    async def queue(context: TenantContext, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if isinstance(delivery.event, ImportQueued):
                # Told twice of the same event, it plans once: the run is pending no more.
                await jobs.defer(
                    plan_import, context.id, PlanImport(delivery.event.import_id), once_key=f"import:{delivery.id}"
                )

    return OutsideConsumer("inventory.imports", (ImportQueued,), queue)
