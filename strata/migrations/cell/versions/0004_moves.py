"""What a move keeps in a cell."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision: str | None = "0003"


def upgrade() -> None:
    op.execute("SELECT 1")
