"""strata db upgrade, once something is to be done: the part that needs Alembic, engines and all that a runtime is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from strata.cli.catalog_database import make_catalog
from strata.cli.surroundings import perform
from strata.cli.whereabouts import settings_for, with_servers
from strata.runtime import Runtime
from strata.tenancy.provisioning.upgrade_report import UpgradePlan, UpgradeReport


def upgrade(plan: UpgradePlan, data_dir: Path | None) -> UpgradeReport:
    """The catalog, made if it is missing, then cells and tenant schemas."""
    if not plan.dry_run:
        asyncio.run(make_catalog(with_servers(settings_for(data_dir))))

    async def act(runtime: Runtime) -> UpgradeReport:
        return await runtime.upgrades.run(plan)

    return perform(act, data_dir)
