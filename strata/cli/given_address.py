"""An address that a person gives."""

from __future__ import annotations

import typer
from sqlalchemy import URL

from strata.platform.database import addresses


def given_address(dsn: str | None) -> URL:
    """A DSN from the command line or, left out or «-», from standard input, where no other process sees it."""
    given = typer.get_text_stream("stdin").readline().strip() if dsn in {None, "-"} else dsn
    return addresses.parse(given or "")
