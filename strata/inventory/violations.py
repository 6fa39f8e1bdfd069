"""Which constraint a refused write has met, so that it can be told in the words of the domain."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError


def violated_constraint(error: IntegrityError) -> str | None:
    # asyncpg's own exception, which has the name, stands behind SQLAlchemy's adapter.
    cause = error.orig.__cause__ if error.orig is not None else None
    return getattr(cause, "constraint_name", None)
