"""Imports as jobs: the upload in chunks, what is still to be posted in batches."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0004"
down_revision: str | None = "0003"

SQL = Path(__file__).resolve().parent.parent / "sql"


def upgrade() -> None:
    op.execute((SQL / "0004_imports_queued.sql").read_text(encoding="utf-8"))
