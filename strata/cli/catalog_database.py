"""The catalog's database, before anything else can be asked of it."""

from __future__ import annotations

import asyncpg
from sqlalchemy import URL

from strata.platform.database import addresses
from strata.platform.database.administration import ServerUnreachableError, administrator
from strata.platform.database.catalog_upgrade import upgrade_catalog
from strata.platform.errors import ConfigurationError
from strata.platform.settings import Settings
from strata.runtime import MIGRATIONS
from strata.tenancy.provisioning.cells import create_database

MAINTENANCE_DATABASE = "postgres"


async def make_catalog(settings: Settings) -> URL:
    """Create the catalog's database where it is missing, and bring it to the newest revision."""
    if settings.database_url is None:
        message = "Strata does not know its catalog: set STRATA_DATABASE_URL."
        raise ConfigurationError(message)
    url = addresses.parse(settings.database_url.get_secret_value())
    await _create_if_missing(url)
    await upgrade_catalog(url, MIGRATIONS / "catalog")
    return url


async def _create_if_missing(url: URL) -> None:
    try:
        async with administrator(url):
            return
    except ServerUnreachableError as error:
        if not isinstance(error.__cause__, asyncpg.InvalidCatalogNameError) or url.database is None:
            raise
    async with administrator(url.set(database=MAINTENANCE_DATABASE)) as admin:
        await create_database(admin, url.database)
