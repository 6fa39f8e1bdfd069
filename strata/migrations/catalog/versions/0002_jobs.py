"""The job engine's tables, in a schema of their own."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002"
down_revision: str | None = "0001"

SQL = Path(__file__).resolve().parent.parent / "sql"


def upgrade() -> None:
    op.execute("CREATE SCHEMA jobs")
    op.execute("SET LOCAL search_path = jobs, pg_temp")
    # A copy, not the installed package's: a revision makes the same tables for ever. A test tells when the two differ.
    for name in ("0002_procrastinate", "0002_jobs"):
        op.execute((SQL / f"{name}.sql").read_text(encoding="utf-8"))
    op.execute("RESET search_path")
