"""The tenant's audit: append-only, each row chained to the one before."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0005"
down_revision: str | None = "0004"

SQL = Path(__file__).resolve().parent.parent / "sql"


def upgrade() -> None:
    op.execute((SQL / "0005_audit.sql").read_text(encoding="utf-8"))
