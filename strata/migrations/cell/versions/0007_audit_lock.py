"""A tenant's audit chain holds its lock for less: what can be done before it is."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0007"
down_revision: str | None = "0006"

SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.execute((SQL / "0007_audit_lock.sql").read_text(encoding="utf-8"))
