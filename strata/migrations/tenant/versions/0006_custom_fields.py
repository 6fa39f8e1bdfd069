"""Custom fields of products and movements, and movements that wait for approval."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0006"
down_revision: str | None = "0005"

SQL = Path(__file__).resolve().parent.parent / "sql"


def upgrade() -> None:
    for name in ("0006_custom_fields", "0006_post_movements"):
        op.execute((SQL / f"{name}.sql").read_text(encoding="utf-8"))
