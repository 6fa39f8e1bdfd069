"""Moves of tenants: phases, attempts, objects made, events."""

from __future__ import annotations

revision = "0005"
down_revision: str | None = "0004"


def upgrade() -> None:
    """Filled in by its owner."""
