"""Who has what: the revisions of the catalog, of every cell and of every tenant schema, beside the newest there are.

It needs the catalog's address and the key, no engine and no model: a command that finds nothing to do has imported little.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import msgspec

from strata.platform.database.connecting import CONNECT_TIMEOUT_S
from strata.tenancy.cell.schema_revisions import CONTROL_SCHEMA, Chains, LedgerLine, lagging, ledger
from strata.tenancy.model import UpgradeTroubleState
from strata.tenancy.provisioning.upgrade_cells import CellAddress, Lag, ask_each, built_cells
from strata.tenancy.provisioning.upgrade_report import CATALOG, Outcome, OutcomeState, SchemaStatus, Trouble

if TYPE_CHECKING:
    from strata.platform.keys.port import KeyPort


class Findings(msgspec.Struct, frozen=True):
    """What is behind; and, as outcomes, what an upgrade can do nothing about: silent cells and schemas that are ahead."""

    lags: list[Lag]
    beyond: list[Outcome]


class UpgradeSurvey:
    def __init__(self, catalog_dsn: str, keys: KeyPort, chains: Chains, jobs: int) -> None:
        """`jobs`: connections to cells at once, where nobody says how many."""
        self._catalog_dsn = catalog_dsn
        self._keys = keys
        self.chains = chains
        self.jobs = jobs

    async def nothing_to_do(self, jobs: int | None = None) -> bool:
        """Whether catalog, cells and schemas are all at head; one short query each."""
        async with self._catalog() as catalog:
            if not (await self._of_catalog(catalog)).current:
                return False
            cells = await built_cells(catalog, self._keys)
        findings = await self._behind(cells, jobs)
        return not findings.lags and not findings.beyond

    async def behind(self, jobs: int | None = None) -> Findings:
        async with self._catalog() as catalog:
            cells = await built_cells(catalog, self._keys)
        return await self._behind(cells, jobs)

    async def status(self) -> list[SchemaStatus]:
        """The revision of the catalog, and of each schema of each cell, beside the newest there is."""
        async with self._catalog() as catalog:
            statuses = [await self._of_catalog(catalog)]
            troubles = await _troubles(catalog) if statuses[0].revision else {}
            cells = await built_cells(catalog, self._keys)
        for cell, found in await ask_each(cells, ledger, self.jobs):
            if isinstance(found, str):
                head = self.chains.cell.head
                statuses.append(SchemaStatus(cell.name, CONTROL_SCHEMA, None, head, cell.server, silence=found))
                continue
            for line in found:
                head = self.chains.of(line.schema).head
                trouble = troubles.get((cell.name, line.schema)) if line.revision != head else None
                statuses.append(SchemaStatus(cell.name, line.schema, line.revision, head, cell.server, trouble))
        return statuses

    async def of_catalog(self) -> SchemaStatus:
        async with self._catalog() as catalog:
            return await self._of_catalog(catalog)

    async def _behind(self, cells: Sequence[CellAddress], jobs: int | None) -> Findings:
        async def ask(admin: asyncpg.Connection) -> list[LedgerLine]:
            return await lagging(admin, self.chains.cell.head, self.chains.tenant.head)

        findings = Findings([], [])
        for cell, found in await ask_each(cells, ask, jobs or self.jobs):
            if isinstance(found, str):
                head = self.chains.cell.head
                findings.beyond.append(
                    Outcome(cell.name, CONTROL_SCHEMA, OutcomeState.FAILED, None, head, attempts=1, error=found)
                )
                continue
            for line in found:
                chain = self.chains.of(line.schema)
                if chain.knows(line.revision):
                    findings.lags.append(Lag(cell, line))
                else:
                    findings.beyond.append(
                        Outcome(cell.name, line.schema, OutcomeState.AHEAD, line.revision, chain.head)
                    )
        return findings

    async def _of_catalog(self, catalog: asyncpg.Connection) -> SchemaStatus:
        current = None
        if await catalog.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL"):
            current = await catalog.fetchval("SELECT version_num FROM alembic_version")
        return SchemaStatus(CATALOG, "public", current, self.chains.catalog.head)

    @asynccontextmanager
    async def _catalog(self) -> AsyncIterator[asyncpg.Connection]:
        # Its errors stay as they are: that there is no catalog yet is told from one that does not answer.
        connection = await asyncpg.connect(self._catalog_dsn, timeout=CONNECT_TIMEOUT_S, statement_cache_size=0)
        try:
            yield connection
        finally:
            connection.terminate()


async def _troubles(catalog: asyncpg.Connection) -> dict[tuple[str, str], Trouble]:
    """By cell and schema."""
    rows = await catalog.fetch("SELECT cell, schema_name, state, attempts, error, last_at FROM upgrade_trouble")
    return {
        (row["cell"], row["schema_name"]): Trouble(
            UpgradeTroubleState(row["state"]), row["attempts"], row["error"], row["last_at"]
        )
        for row in rows
    }
