"""Alembic's environment for the catalog; the connection comes from strata.platform.database.catalog_upgrade."""

from alembic import context
from sqlalchemy import text

from strata.tenancy.catalog.tables import CatalogModel

connection = context.config.attributes["connection"]
# Two processes that start together upgrade one after the other.
connection.execute(text("SELECT pg_advisory_xact_lock(7525)"))
connection.execute(text("SET LOCAL lock_timeout = '4s'"))
context.configure(connection=connection, target_metadata=CatalogModel.metadata)
with context.begin_transaction():
    context.run_migrations()
