"""Alembic on the catalog: a single database, so Alembic itself is fast enough."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, NullPool, create_engine

from strata.platform.database.addresses import for_psycopg

log = structlog.get_logger(__name__)


def _configuration(location: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(location))
    return config


async def upgrade_catalog(url: URL, location: Path) -> None:
    """Bring the catalog to the newest revision. `location`: the Alembic script directory."""
    await asyncio.to_thread(_upgrade, url, location)


def _upgrade(url: URL, location: Path) -> None:
    config = _configuration(location)
    engine = create_engine(for_psycopg(url), poolclass=NullPool)
    with engine.begin() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if current is not None and current not in known:
            # A process of the release before, started after the upgrade: the rules of revisions keep it working.
            log.warning("catalog.newer", revision=current)
            return
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
