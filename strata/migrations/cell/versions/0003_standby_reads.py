"""A door for reads on a standby."""

from __future__ import annotations

revision = "0003"
down_revision: str | None = "0002"


def upgrade() -> None:
    """Filled in by its owner."""
