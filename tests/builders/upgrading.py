"""A release that is not out yet: the revisions there are, and some more."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from strata.migrations import MIGRATIONS
from strata.platform.database.addresses import libpq
from strata.platform.settings import UpgradeSettings
from strata.runtime import Runtime
from strata.tenancy.cell.schema_revisions import Chains
from strata.tenancy.provisioning.upgrade_survey import UpgradeSurvey
from strata.tenancy.provisioning.upgrades import Upgrades
from tests.builders.platform import admin_of

if TYPE_CHECKING:
    from strata.tenancy.context import TenantContext

_REVISION = """
from alembic import op

revision = "{revision}"
down_revision = "{before}"


def upgrade():
    op.execute({sql!r})
"""
IMPATIENT = UpgradeSettings(first_lock_timeout_ms=50, lock_timeout_ms=100, pause_s=0.05, tries=3, batch=4, jobs=2)
"""So that a test need not wait; the proportions are the product's."""


def release(folder: Path, *, tenant: Sequence[str] = (), cell: Sequence[str] = ()) -> Path:
    """Migrations with one more revision for each SQL text."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("catalog", "cell", "tenant"):
        shutil.copytree(MIGRATIONS / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, texts in (("tenant", tenant), ("cell", cell)):
        before = getattr(Chains.at(MIGRATIONS), name).head
        for number, sql in enumerate(texts, 1):
            revision = f"9{number:03}"
            text = _REVISION.format(revision=revision, before=before, sql=sql)
            (folder / name / "versions" / f"{revision}_more.py").write_text(text)
            before = revision
    return folder


def upgrades_to(runtime: Runtime, location: Path, settings: UpgradeSettings = IMPATIENT) -> Upgrades:
    return Upgrades(
        runtime.catalog_engine,
        runtime.catalog_url,
        UpgradeSurvey(libpq(runtime.catalog_url), runtime.key_port, Chains.at(location), settings.jobs),
        settings,
    )


async def withdraw(runtime: Runtime, column: str) -> None:
    """As if the release had never been: the ledgers say what they said before."""
    chains = Chains.at(MIGRATIONS)
    for cell in await runtime.registry.cells():
        async with admin_of(runtime, cell.name) as admin:
            for row in await admin.fetch("SELECT schema_name FROM strata.revision WHERE schema_name <> 'strata'"):
                await admin.execute(f'ALTER TABLE "{row["schema_name"]}".product DROP COLUMN IF EXISTS {column}')
            await admin.execute(
                "UPDATE strata.revision SET revision = CASE schema_name WHEN 'strata' THEN $1 ELSE $2 END",
                chains.cell.head,
                chains.tenant.head,
            )


async def has_column(runtime: Runtime, tenant: TenantContext, column: str) -> bool:
    return column in await columns(runtime, tenant.placement.cell, tenant.placement.schema_name)


async def columns(runtime: Runtime, cell: str, schema: str) -> list[str]:
    async with admin_of(runtime, cell) as admin:
        rows = await admin.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped",
            f'"{schema}".product',
        )
    return [row["attname"] for row in rows]
