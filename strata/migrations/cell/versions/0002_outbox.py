"""The outbox: events as rows, written in the tenant's transaction."""

from __future__ import annotations

revision = "0002"
down_revision: str | None = "0001"


def upgrade() -> None:
    """Filled in by its owner."""
