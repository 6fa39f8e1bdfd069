"""The worker's composition: which jobs there are, and what they are lent."""

from __future__ import annotations

from collections.abc import Sequence

from strata.events import relay
from strata.inventory.imports.pace import ImportPace
from strata.inventory.jobs import JOBS as INVENTORY_JOBS
from strata.moving import keep_moving
from strata.platform.database.addresses import libpq
from strata.platform.errors import InvalidInputError
from strata.platform.jobs.declaration import AnyDeclaration, JobRegistry, Queue, Scope
from strata.platform.jobs.runner import platform_scope
from strata.platform.jobs.scheduler import Scheduler, queue_name
from strata.platform.jobs.services import Services
from strata.platform.jobs.worker import Companion, JobWorker
from strata.platform.settings import JobSettings
from strata.runtime import Runtime
from strata.tenancy.jobs.audience import TenantAudience
from strata.tenancy.jobs.housekeeping import JOBS as TENANCY_JOBS
from strata.tenancy.jobs.scope import TenantScope
from strata.tenancy.neighbours.explaining import Explainer
from strata.tenancy.neighbours.jobs import JOBS as NEIGHBOUR_JOBS
from strata.tenancy.plans import plans
from strata.tenancy.usage.jobs import JOBS as USAGE_JOBS


def all_jobs() -> tuple[AnyDeclaration, ...]:
    return (*TENANCY_JOBS, *USAGE_JOBS, *NEIGHBOUR_JOBS, *INVENTORY_JOBS)


def companions(runtime: Runtime) -> Sequence[Companion]:
    """Loops that live in every worker without being jobs."""
    return (Companion("relay", lambda: relay(runtime)), Companion("moves", lambda: keep_moving(runtime)))


def known_queues() -> list[str]:
    """Every queue a job can be in: the common ones, and those that plans keep for themselves."""
    lanes = sorted({plan.jobs.lane for plan in plans().values() if plan.jobs.lane is not None})
    return [queue_name(queue, lane) for queue in Queue for lane in (None, *lanes)]


def open_worker(
    runtime: Runtime,
    settings: JobSettings,
    *,
    queues: Sequence[str] | None = None,
    jobs: Sequence[AnyDeclaration] | None = None,
) -> JobWorker:
    """`queues`: None for all; `jobs`: None for all that Strata has, tests add their own."""
    registry = JobRegistry(all_jobs() if jobs is None else jobs)
    imports = runtime.settings.imports
    services = Services(
        runtime.provisioning,
        runtime.entitlements,
        runtime.catalog_engine,
        runtime.flag_desk,
        runtime.flag_client,
        runtime.jobs,
        runtime.jobs.store,
        settings,
        imports,
        ImportPace(imports),
        runtime.usage,
        runtime.neighbours,
        Explainer(runtime.neighbours, runtime.tenants, runtime.contexts),
    )
    scope = TenantScope(runtime.contexts, runtime.tenants, runtime.jobs, services)
    scheduler = Scheduler(
        runtime.catalog_engine,
        runtime.jobs.store,
        registry,
        TenantAudience(runtime.catalog_engine),
        tick_s=settings.tick_s,
    )
    return JobWorker(
        libpq(runtime.catalog_url),
        registry,
        {Scope.OWNER: scope.open, Scope.PLATFORM: lambda running: platform_scope(running, services)},
        scheduler,
        settings,
        queues=known_queues() if queues is None else _checked(queues),
        long_queues=[name for name in known_queues() if name.partition("@")[0] == Queue.BULK],
        companions=companions(runtime),
    )


def _checked(queues: Sequence[str]) -> Sequence[str]:
    unknown = [queue for queue in queues if queue not in known_queues()]
    if unknown:
        detail = f"There is no queue «{unknown[0]}»; there are {', '.join(known_queues())}."
        raise InvalidInputError(detail)
    return queues
