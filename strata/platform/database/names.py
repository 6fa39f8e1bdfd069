"""SQL identifiers: DDL takes no parameters, so a name is quoted here or not used at all."""

from __future__ import annotations


def quoted(identifier: str) -> str:
    if not identifier or "\0" in identifier or len(identifier.encode()) > 63:  # noqa: PLR2004 - NAMEDATALEN - 1
        message = f"{identifier!r} cannot be an SQL identifier: 1 to 63 bytes, none of them zero"
        raise ValueError(message)
    return '"' + identifier.replace('"', '""') + '"'


def literal(value: str) -> str:
    """An SQL string literal, for the few statements that take no parameters (CREATE ROLE … PASSWORD, for one)."""
    if "\0" in value:
        message = "an SQL string cannot hold a zero byte"
        raise ValueError(message)
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"
