"""PostgreSQL addresses: one URL in, the forms that the drivers want out."""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from strata.platform.errors import ConfigurationError


def parse(dsn: str) -> URL:
    """Read postgresql://user:password@host:port/database; the error never repeats it, for the password in it."""
    try:
        url = make_url(dsn)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.get_backend_name() not in {"postgresql", "postgres"} or not url.database:
        message = "A database address must read postgresql://user:password@host:port/database."
        raise ConfigurationError(message)
    return url.set(drivername="postgresql")


def libpq(url: URL) -> str:
    """The DSN as libpq, psycopg and asyncpg.connect read it, password included."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def for_asyncpg(url: URL) -> URL:
    """The URL for SQLAlchemy on asyncpg, which calls libpq's sslmode «ssl»."""
    query = dict(url.query)
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    return url.set(drivername="postgresql+asyncpg", query=query)


def for_psycopg(url: URL) -> URL:
    return url.set(drivername="postgresql+psycopg")
