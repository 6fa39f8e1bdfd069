"""What each sealed text of the register was sealed for; it opens for nothing else."""

from __future__ import annotations


def admin_dsn(server: str) -> str:
    return f"server/{server}/admin-dsn"


def app_password(server: str) -> str:
    return f"server/{server}/app-password"


def cell_secret(cell: str) -> str:
    return f"cell/{cell}/secret"
