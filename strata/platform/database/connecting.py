"""A plain connection by DSN; what asks a database one question needs no more, and no SQLAlchemy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg

from strata.platform.database.failures import NO_ANSWER
from strata.platform.errors import UnavailableError

CONNECT_TIMEOUT_S = 10
_REMEMBERED = 100


class ServerUnreachableError(UnavailableError):
    code = "server-unreachable"
    title = "PostgreSQL server unreachable"

    def __init__(self, dsn: str, reason: BaseException) -> None:
        where = urlsplit(dsn)
        super().__init__(
            f"No connection to PostgreSQL at {where.hostname or 'local socket'}:{where.port or 5432} ({reason}): "
            "start it, or correct its address."
        )


class DatabaseMissingError(ServerUnreachableError):
    """The server answers, and has no database of this name."""

    code = "database-missing"
    title = "The server does not have this database"


async def connect(dsn: str, database: str | None = None, *, remembering: bool = False) -> asyncpg.Connection:
    """As the DSN's user; `database`: another one than the DSN's.

    `remembering`: statements stay prepared, for who says a thing again and has no time to have it parsed then.
    """
    try:
        return await asyncpg.connect(
            dsn,
            database=database,
            timeout=CONNECT_TIMEOUT_S,
            statement_cache_size=_REMEMBERED if remembering else 0,
        )
    except asyncpg.InvalidCatalogNameError as error:
        raise DatabaseMissingError(dsn, error) from error
    except NO_ANSWER as error:
        raise ServerUnreachableError(dsn, error) from error


@asynccontextmanager
async def connection(
    dsn: str, database: str | None = None, *, remembering: bool = False
) -> AsyncIterator[asyncpg.Connection]:
    """Closed at the end of the block."""
    opened = await connect(dsn, database, remembering=remembering)
    try:
        yield opened
    finally:
        # terminate, should the block have been cancelled while a statement ran
        if opened.is_in_transaction():
            opened.terminate()
        else:
            await opened.close(timeout=CONNECT_TIMEOUT_S)
