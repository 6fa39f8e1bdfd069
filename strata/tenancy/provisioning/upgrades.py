"""Bring the catalog, every cell and every tenant schema to head, and say who has what."""

from __future__ import annotations

from pathlib import Path

import msgspec
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.platform.database.administration import administrator
from strata.platform.database.catalog_upgrade import catalog_revisions, upgrade_catalog
from strata.tenancy.catalog.registry import Registry
from strata.tenancy.cell.schema_revisions import CONTROL_SCHEMA, upgrade_schema
from strata.tenancy.model import CellState
from strata.tenancy.provisioning.cells import Chains


class SchemaStatus(msgspec.Struct, frozen=True):
    cell: str
    """The cell's name, or «catalog»."""
    schema: str
    revision: str | None
    head: str | None

    @property
    def current(self) -> bool:
        return self.revision == self.head


class Upgrades:
    def __init__(
        self, catalog: AsyncEngine, catalog_url: URL, registry: Registry, chains: Chains, location: Path
    ) -> None:
        self._catalog = catalog
        self._catalog_url = catalog_url
        self._registry = registry
        self._chains = chains
        self._location = location

    async def catalog(self) -> None:
        await upgrade_catalog(self._catalog_url, self._location)
        # Statements prepared before the upgrade describe tables that have changed.
        await self._catalog.dispose()

    async def cells(self) -> list[SchemaStatus]:
        """Upgrade what lags behind, control schema first; returns what was upgraded."""
        upgraded = []
        for cell in await self._built():
            async with administrator(await self._registry.admin_url_of_cell(cell)) as admin:
                if await upgrade_schema(admin, CONTROL_SCHEMA, self._chains.cell):
                    upgraded.append(SchemaStatus(cell, CONTROL_SCHEMA, self._chains.cell.head, self._chains.cell.head))
                for row in await admin.fetch(
                    "SELECT schema_name FROM strata.revision WHERE schema_name <> $1 AND revision <> $2",
                    CONTROL_SCHEMA,
                    self._chains.tenant.head,
                ):
                    schema: str = row["schema_name"]
                    await upgrade_schema(admin, schema, self._chains.tenant)
                    upgraded.append(SchemaStatus(cell, schema, self._chains.tenant.head, self._chains.tenant.head))
        return upgraded

    async def status(self) -> list[SchemaStatus]:
        """The revision of the catalog, and of each schema of each cell, beside the newest there is."""
        statuses = [SchemaStatus("catalog", "public", *await catalog_revisions(self._catalog_url, self._location))]
        for cell in await self._built():
            async with administrator(await self._registry.admin_url_of_cell(cell)) as admin:
                for row in await admin.fetch("SELECT schema_name, revision FROM strata.revision ORDER BY schema_name"):
                    chain = self._chains.cell if row["schema_name"] == CONTROL_SCHEMA else self._chains.tenant
                    statuses.append(SchemaStatus(cell, row["schema_name"], row["revision"], chain.head))
        return statuses

    async def _built(self) -> list[str]:
        return [cell.name for cell in await self._registry.cells() if cell.state is not CellState.BUILDING]
