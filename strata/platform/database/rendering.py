"""Alembic revisions as SQL text, rendered offline; imported when a revision is to be applied, since Alembic is large."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect

from strata.platform.errors import ConfigurationError


def rendered(location: Path) -> Iterator[tuple[str, str]]:
    """Every revision of a script directory, oldest first, as its id and SQL that names no schema."""
    newest_first = list(ScriptDirectory(str(location)).walk_revisions())
    for script in reversed(newest_first):
        yield script.revision, _render(script.module.upgrade)


def _render(upgrade: object) -> str:
    output = io.StringIO()
    # asyncpg's dialect, because its parameter style leaves percent signs in text alone.
    context = MigrationContext.configure(
        dialect=asyncpg_dialect.dialect(),  # type: ignore[no-untyped-call]
        opts={"as_sql": True, "output_buffer": output, "literal_binds": True},
    )
    with Operations.context(context):
        if not callable(upgrade):
            message = "A revision has no upgrade()."
            raise ConfigurationError(message)
        upgrade()
    return output.getvalue()
