"""Options that every command has, spelt once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where the embedded servers and the local key are (default: STRATA_DATA_DIR, else .strata).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Slug = Annotated[str, typer.Argument(metavar="SLUG", help="The tenant's slug, as in <slug>.localhost.")]


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration_s(text: str) -> int:
    """48h, 30m, 90s or 7d, in seconds."""
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if found is None:
        message = f"«{text}» is no duration; write 48h, 30m, 90s or 7d"
        raise typer.BadParameter(message)
    return int(found[1]) * _UNITS_S[found[2]]
