"""The outbox: events as rows, written in the tenant's transaction."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002"
down_revision: str | None = "0001"

SQL = Path(__file__).resolve().parent.parent / "sql"


def upgrade() -> None:
    op.execute((SQL / "0002_outbox.sql").read_text(encoding="utf-8"))
