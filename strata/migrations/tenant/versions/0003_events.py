"""The inventory tells what happened, and keeps what consumers make of it."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision: str | None = "0002"

SQL = Path(__file__).resolve().parent.parent / "sql"


def upgrade() -> None:
    for name in ("0003_events", "0003_post_movements"):
        op.execute((SQL / f"{name}.sql").read_text(encoding="utf-8"))
