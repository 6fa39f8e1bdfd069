"""`alembic check`, for the catalog and for the tenants' tables on every tier: models and migrations say the same."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL, MetaData, NullPool, create_engine, text

import strata
from strata.platform.database import addresses
from strata.runtime import Runtime
from strata.tenancy.catalog.tables import CatalogModel
from strata.tenancy.model import Tier
from strata.tenancy.scoping import TenantModel
from tests.builders.platform import Tenantry


def every_model() -> None:
    """Wherever one may stand: a model in a module that nobody imported would look like a table too many."""
    for _, name, _ in pkgutil.walk_packages(strata.__path__, "strata."):
        if not name.endswith("__main__"):
            importlib.import_module(name)


def differences(url: URL, metadata: MetaData, search_path: str | None = None) -> list[Any]:
    """What Alembic would change. Partitions are PostgreSQL's affair, not the models'."""
    engine = create_engine(addresses.for_psycopg(url), poolclass=NullPool)
    with engine.connect() as connection:
        if search_path is not None:
            connection.execute(text("SELECT set_config('search_path', :path, false)"), {"path": search_path})
            connection.dialect.default_schema_name = search_path
        partitions = set(connection.scalars(text("SELECT relname FROM pg_class WHERE relispartition")))
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "include_name": lambda name, kind, _: (
                    kind != "table" or (name not in partitions and name != "alembic_version")
                ),
            },
        )
        found = compare_metadata(context, metadata)
    return list(found)


async def test_the_catalog(runtime: Runtime) -> None:
    every_model()
    assert await asyncio.to_thread(differences, runtime.catalog_url, CatalogModel.metadata) == []


@pytest.mark.parametrize("tier", Tier)
async def test_tenant_tables(runtime: Runtime, tenant_on: Tenantry, tier: Tier) -> None:
    """Columns and their types; keys and indexes stand in the SQL of the migrations alone."""
    every_model()
    tenant = await tenant_on(tier)
    url = await runtime.registry.admin_url_of_cell(tenant.placement.cell)
    found = await asyncio.to_thread(differences, url, TenantModel.metadata, tenant.placement.schema_name)
    kinds = ("fk", "index", "constraint")
    columns = [each for each in found if isinstance(each, list) or not any(kind in each[0] for kind in kinds)]
    assert columns == []


async def test_a_difference_would_be_found(runtime: Runtime, tenant_on: Tenantry) -> None:
    """The control: without models every table is one too many, and with them none is missing."""
    every_model()
    tenant = await tenant_on(Tier.SCHEMA)
    url = await runtime.registry.admin_url_of_cell(tenant.placement.cell)
    found = await asyncio.to_thread(differences, url, MetaData(), tenant.placement.schema_name)
    assert {each[1].name for each in found if each[0] == "remove_table"} == set(TenantModel.metadata.tables)
    assert len(found) >= 11
