"""The same project with as many tables as Strata's inventory has; for what schemas cost, not requests."""

import os

from tests.bench.peers.schemas.settings import *  # noqa: F403 - how Django settings extend one another

TENANT_APPS = ["tests.bench.peers.schemas.warehouse"]
INSTALLED_APPS = [*SHARED_APPS, *TENANT_APPS]  # noqa: F405
# The executor that django-tenants has for many schemas, with as many processes as there are cores.
TENANT_MULTIPROCESSING_MAX_PROCESSES = os.cpu_count()
if os.environ.get("BENCH_NEXT_RELEASE"):
    MIGRATION_MODULES = {"warehouse": "tests.bench.peers.schemas.warehouse.next_release.migrations"}
