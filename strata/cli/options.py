"""Options that every command has, spelt once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import URL

from strata.platform.database import addresses

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


def given_address(dsn: str | None) -> URL:
    """A DSN from the command line or, left out or «-», from standard input, where no other process sees it."""
    given = typer.get_text_stream("stdin").readline().strip() if dsn in {None, "-"} else dsn
    return addresses.parse(given or "")


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration_s(text: str) -> int:
    """48h, 30m, 90s or 7d, in seconds."""
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if found is None:
        message = f"«{text}» is no duration; write 48h, 30m, 90s or 7d"
        raise typer.BadParameter(message)
    return int(found[1]) * _UNITS_S[found[2]]
