"""What was agreed in documents, before entitlements were kept, becomes overrides."""

from __future__ import annotations

import asyncio
import secrets
from uuid import uuid4

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import NullPool, create_engine

from strata.migrations import MIGRATIONS
from strata.platform.database import addresses
from tests.servers import PostgresServer

DOCUMENTS = {
    "features": '{"on": ["sso", "fax"], "off": ["import", "fax"]}',
    "limits": '{"skus": 7, "users": null, "locations": "many"}',
    "settings": '{"locale": "de"}',
}


def migrate(dsn: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS / "catalog"))
    engine = create_engine(addresses.for_psycopg(addresses.parse(dsn)), poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


async def test_documents_become_overrides(postgres_server: PostgresServer) -> None:
    name = f"agreed_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_server.admin_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    dsn, tenant = postgres_server.dsn(name), uuid4()
    try:
        await asyncio.to_thread(migrate, dsn, "0006")
        with psycopg.connect(dsn) as connection:
            connection.execute(
                "INSERT INTO tenant (id, slug, name, status, plan) VALUES (%s, 'old', 'Old', 'active', 'free')",
                [tenant],
            )
            for facet, document in DOCUMENTS.items():
                connection.execute(
                    "INSERT INTO tenant_document (tenant_id, facet, document) VALUES (%s, %s, %s)",
                    [tenant, facet, document],
                )
        await asyncio.to_thread(migrate, dsn, "0007")
        with psycopg.connect(dsn) as connection:
            found = connection.execute(
                "SELECT kind, name, amount, given FROM entitlement WHERE tenant_id = %s ORDER BY kind, name", [tenant]
            ).fetchall()
            assert found == [
                ("feature", "fax", None, False),
                ("feature", "import", None, False),
                ("feature", "sso", None, True),
                ("limit", "skus", 7, True),
                ("limit", "users", None, True),
            ]
            kept = connection.execute("SELECT count(*) FROM tenant_document").fetchone()
            assert kept == (3,), "the release before goes on reading them"
    finally:
        with psycopg.connect(postgres_server.admin_dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
