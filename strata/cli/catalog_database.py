"""The catalog's database, before anything else can be asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy import URL

from strata.migrations import MIGRATIONS
from strata.platform.database import addresses
from strata.platform.database.administration import administrator
from strata.platform.database.catalog_upgrade import upgrade_catalog
from strata.platform.database.connecting import ServerUnreachableError
from strata.platform.database.lease import lease
from strata.platform.errors import ConfigurationError
from strata.platform.settings import Settings
from strata.tenancy.provisioning.cells import create_database

MAINTENANCE_DATABASE = "postgres"
_ASK_AGAIN_S = 0.2


async def make_catalog(settings: Settings) -> URL:
    """Create the catalog's database where it is missing, and bring it to the newest revision."""
    if settings.database_url is None:
        message = "Strata does not know its catalog: set STRATA_DATABASE_URL."
        raise ConfigurationError(message)
    url = addresses.parse(settings.database_url.get_secret_value())
    await _create_if_missing(url)
    async with turn(url, "catalog/upgrade"):
        await upgrade_catalog(url, MIGRATIONS / "catalog")
    return url


@asynccontextmanager
async def turn(catalog: URL, name: str) -> AsyncIterator[None]:
    """One process of all at a time, the others wait: several may be started on one catalog at the same moment."""
    while True:
        async with lease(catalog, name) as ours:
            if ours:
                yield
                return
        await asyncio.sleep(_ASK_AGAIN_S)


async def _create_if_missing(url: URL) -> None:
    try:
        async with administrator(url):
            return
    except ServerUnreachableError as error:
        if not isinstance(error.__cause__, asyncpg.InvalidCatalogNameError) or url.database is None:
            raise
    async with administrator(url.set(database=MAINTENANCE_DATABASE)) as admin:
        await create_database(admin, url.database)
