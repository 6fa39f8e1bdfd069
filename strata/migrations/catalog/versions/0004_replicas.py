"""Standbys that may serve reads."""

from __future__ import annotations

revision = "0004"
down_revision: str | None = "0003"


def upgrade() -> None:
    """Filled in by its owner."""
