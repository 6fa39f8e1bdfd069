"""What went wrong, as a sentence that says what to do: exceptions of libraries become errors with a name here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import psycopg
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError

from strata.platform.database.availability import is_unreachable
from strata.platform.errors import ConfigurationError, StrataError, UnavailableError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# Undefined table, column, schema, function: the program is newer than what it talks to.
_UNDEFINED = frozenset({"42P01", "42703", "3F000", "42883"})
_NO_SUCH_DATABASE = "3D000"
_WRONG_CREDENTIALS = frozenset({"28P01", "28000"})


class SettingsRefusedError(ConfigurationError):
    code = "settings-refused"
    title = "A setting is not acceptable"


class CatalogBehindError(ConfigurationError):
    code = "catalog-behind"
    title = "The catalog is not up to date"

    def __init__(self) -> None:
        super().__init__("The catalog has no tables, or older ones than this version of Strata: run strata db upgrade.")


class CatalogMissingError(ConfigurationError):
    code = "catalog-missing"
    title = "There is no catalog"

    def __init__(self) -> None:
        super().__init__(
            "The database that STRATA_DATABASE_URL names does not exist: strata db upgrade creates and fills it."
        )


class CredentialsRefusedError(ConfigurationError):
    code = "credentials-refused"
    title = "PostgreSQL refused the credentials"

    def __init__(self) -> None:
        super().__init__("PostgreSQL refused the user or the password of STRATA_DATABASE_URL: check both.")


class DatabaseUnreachableError(UnavailableError):
    code = "database-unreachable"
    title = "PostgreSQL does not answer"

    def __init__(self) -> None:
        super().__init__(
            "PostgreSQL does not answer: start it (strata up starts the embedded one), or correct its address."
        )


class FileRefusedError(ConfigurationError):
    code = "file-refused"
    title = "A file or folder cannot be used"

    def __init__(self, error: OSError) -> None:
        super().__init__(f"{error.filename} cannot be used ({error.strerror}): mend that, or name another one.")


def named(error: BaseException) -> StrataError | None:
    """The error as one of ours; None: nobody expected it, and its traceback is wanted."""
    match error:
        case StrataError():
            return error
        case ValidationError():
            return SettingsRefusedError(" ".join(_setting(each) for each in error.errors()))
        case BaseExceptionGroup():
            # Tasks that ran side by side; what one of them died of is what the person has to mend.
            return named(error.exceptions[0])
        case OSError(filename=str() | bytes()):
            return FileRefusedError(error)
        case DBAPIError() | asyncpg.PostgresError() | psycopg.Error() | OSError() | TimeoutError():
            return _of_database(error)
        case _:
            return None


def _of_database(error: BaseException) -> StrataError | None:
    state = _sqlstate(error)
    if state in _UNDEFINED:
        return CatalogBehindError()
    # psycopg's errors at connection have no SQLSTATE, only the server's text.
    if state == _NO_SUCH_DATABASE or (not state and " does not exist" in str(error) and "database" in str(error)):
        return CatalogMissingError()
    if state in _WRONG_CREDENTIALS or (not state and "authentication failed" in str(error)):
        return CredentialsRefusedError()
    if isinstance(error, (ConnectionError, TimeoutError)) or is_unreachable(error):
        return DatabaseUnreachableError()
    return None


def _sqlstate(error: BaseException) -> str:
    origin = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(origin, "sqlstate", None) or "")


def _setting(error: ErrorDetails) -> str:
    """Names the variable, never the value: it may be a password."""
    path = [str(part) for part in error["loc"]]
    said = error["msg"].removeprefix("Value error, ").rstrip(".")
    if not path:
        return f"{said[:1].upper()}{said[1:]}."
    return f"STRATA_{'__'.join(path).upper()} is not acceptable: {said[:1].lower()}{said[1:]}."
