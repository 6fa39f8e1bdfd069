from __future__ import annotations

from strata.platform.jobs.declaration import NoArguments, PlatformJob, platform_job
from strata.platform.jobs.schedules import Every
from strata.tenancy.neighbours.book import NeighbourBook
from strata.tenancy.neighbours.explaining import Explainer


@platform_job("tenancy.explain-slow-statements", schedule=Every(minutes=1))
async def explain_slow_statements(job: PlatformJob, _arguments: NoArguments) -> None:
    await job.services.get(Explainer).explain_some()


@platform_job("tenancy.tend-neighbours", schedule=Every(minutes=1))
async def tend_neighbours(job: PlatformJob, _arguments: NoArguments) -> None:
    """End what nobody sees any more, also when the process that found it is gone; forget what is old."""
    book = job.services.get(NeighbourBook)
    await book.end_unseen()
    await book.purge()


JOBS = (explain_slow_statements, tend_neighbours)
