"""The inventory: its tables, and the functions that move stock."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision: str | None = None

SQL = Path(__file__).resolve().parent.parent / "sql"


def upgrade() -> None:
    for name in ("0001_inventory", "0001_post_movements", "0001_post_movement"):
        op.execute((SQL / f"{name}.sql").read_text(encoding="utf-8"))
