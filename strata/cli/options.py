"""Options that every command has, spelt once."""

from __future__ import annotations

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
