"""What a move keeps in a cell: which attempt may write, and where its streams stand."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0004"
down_revision: str | None = "0003"

SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.execute((SQL / "0004_moves.sql").read_text(encoding="utf-8"))
