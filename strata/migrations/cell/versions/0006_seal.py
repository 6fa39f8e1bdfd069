"""A seal that only the server can set: checked by comparison instead of by signature."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0006"
down_revision: str | None = "0005"

SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.execute((SQL / "0006_seal.sql").read_text(encoding="utf-8"))
