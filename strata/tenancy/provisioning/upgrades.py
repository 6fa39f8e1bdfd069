"""Bring the catalog, every cell and every tenant schema to head, and say who has what.

The order: catalog, then the canary's schemas (each after the control schema of its cell), then all others. A failure
before the canary has passed ends the run; after it, a failure is that schema's alone. A run that dies is run again:
the ledgers in the cells say what is left to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import structlog
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.platform.database.catalog_upgrade import upgrade_catalog
from strata.platform.database.lease import lease
from strata.platform.settings import UpgradeSettings
from strata.tenancy.cell.schema_revisions import CONTROL_SCHEMA, sizes
from strata.tenancy.provisioning.exclusion import UPGRADE_LEASE
from strata.tenancy.provisioning.upgrade_cells import Lag, ask_each
from strata.tenancy.provisioning.upgrade_ledger import Resident, UpgradeLedger
from strata.tenancy.provisioning.upgrade_replay import Replay
from strata.tenancy.provisioning.upgrade_report import (
    Outcome,
    OutcomeState,
    UpgradePlan,
    UpgradeReport,
    UpgradeRunningError,
)
from strata.tenancy.provisioning.upgrade_survey import Findings, UpgradeSurvey

log = structlog.get_logger()

_ASK_AGAIN_S = 0.2
_NOBODY = Resident(0, marked=False)


class Upgrades:
    def __init__(
        self,
        catalog: AsyncEngine,
        catalog_url: URL,
        survey: UpgradeSurvey,
        settings: UpgradeSettings,
    ) -> None:
        self.survey = survey
        self._catalog = catalog
        self._catalog_url = catalog_url
        self._settings = settings

    async def catalog(self) -> None:
        await upgrade_catalog(self._catalog_url, self.survey.chains.catalog.location)
        # Statements prepared before the upgrade describe tables that have changed.
        await self._catalog.dispose()

    async def cells(self) -> UpgradeReport:
        """Everything but the catalog, for a process that starts: it waits for another's upgrade, and goes on after a
        failure, for all whom it does not concern.
        """
        report = await self.run(UpgradePlan(wait=True))
        if not report.complete:
            log.error("upgrade.incomplete", failed=len(report.of(OutcomeState.FAILED)))
        return report

    async def run(self, plan: UpgradePlan) -> UpgradeReport:
        """Upgrade what lags behind. Nothing does: it is seen with one short query a cell, and no lease is taken."""
        jobs = plan.jobs or self.survey.jobs
        findings = await self.survey.behind(jobs)
        if plan.dry_run or not findings.lags:
            lags = (
                self._marked(await self._by_canary_order(findings.lags, jobs), plan.canary)
                if plan.canary
                else findings.lags
            )
            return UpgradeReport(self._pending(lags) + findings.beyond, plan.dry_run, stopped_at_canary=False)
        async with self._turn(wait=plan.wait):
            # Whoever had the lease may have done it.
            return await self._upgrade(await self.survey.behind(jobs), plan, jobs)

    async def _upgrade(self, findings: Findings, plan: UpgradePlan, jobs: int) -> UpgradeReport:
        ledger = UpgradeLedger(self._catalog)
        replay = Replay(self.survey.chains, self._settings, ledger, jobs)
        await ledger.forget_all_but({(lag.cell.name, lag.line.schema) for lag in findings.lags})
        lags = findings.lags
        outcomes: list[Outcome] = []
        if plan.canary:
            lags = self._marked(await self._by_canary_order(lags, jobs), plan.canary)
            outcomes = await replay.bring([lag for lag in lags if lag.canary])
            lags = [lag for lag in lags if not lag.canary]
            if any(each.state is not OutcomeState.UPGRADED for each in outcomes):
                return UpgradeReport(
                    outcomes + self._pending(lags) + findings.beyond, dry_run=False, stopped_at_canary=True
                )
        outcomes += await replay.bring(lags)
        return UpgradeReport(outcomes + findings.beyond, dry_run=False, stopped_at_canary=False)

    async def _by_canary_order(self, lags: Sequence[Lag], jobs: int) -> list[Lag]:
        """Those first who suffer least: marked by staff, then schemas of one tenant, the smallest first."""
        residents = await UpgradeLedger(self._catalog).residents()
        cells = {lag.cell.name: lag.cell for lag in lags}
        pages = {
            (cell.name, schema): size
            for cell, found in await ask_each(cells.values(), sizes, jobs)
            if isinstance(found, dict)
            for schema, size in found.items()
        }

        def rank(lag: Lag) -> tuple[bool, bool, int, str, str]:
            key = (lag.cell.name, lag.line.schema)
            who = residents.get(key, _NOBODY)
            return (not who.marked, who.tenants != 1, pages.get(key, 0), *key)

        return sorted(lags, key=rank)

    @staticmethod
    def _marked(ordered: Sequence[Lag], canary: int) -> list[Lag]:
        """The first `canary` tenant schemas and, before them, the control schemas of the cells they are in."""
        chosen = [lag for lag in ordered if not lag.is_control][:canary]
        cells = {lag.cell.name for lag in chosen}
        if not chosen:
            # Only cells' control schemas lag behind: then they are the canary.
            chosen = list(ordered[:canary])
        first = {(lag.cell.name, lag.line.schema) for lag in chosen} | {(cell, CONTROL_SCHEMA) for cell in cells}
        return [msgspec.structs.replace(lag, canary=(lag.cell.name, lag.line.schema) in first) for lag in ordered]

    def _pending(self, lags: Sequence[Lag]) -> list[Outcome]:
        return [
            Outcome(
                lag.cell.name,
                lag.line.schema,
                OutcomeState.PENDING,
                lag.line.revision,
                self.survey.chains.of(lag.line.schema).head,
                lag.canary,
            )
            for lag in lags
        ]

    @asynccontextmanager
    async def _turn(self, *, wait: bool) -> AsyncIterator[None]:
        while True:
            async with lease(self._catalog_url, UPGRADE_LEASE) as ours:
                if ours:
                    yield
                    return
            if not wait:
                raise UpgradeRunningError
            await asyncio.sleep(_ASK_AGAIN_S)
