"""Whether a pooled connection still lives, asked only of one that has lain idle.

SQLAlchemy's own `pool_pre_ping` asks at every turn, which with asyncpg is three round trips: as many as all the rest of
a short transaction. A server that ends says so to whoever is connected; only one that went without a word does not, and
a connection that was in use a moment ago is as good as asked.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from strata.platform.database.failures import NO_ANSWER

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlalchemy.pool import ConnectionPoolEntry

_TRUSTED_S = 1.0
_IDLE_SINCE = "idle_since"


def engine_asking_the_idle(url: URL, *, pool_size: int, max_overflow: int) -> AsyncEngine:
    """Connections that lay idle for longer than a second are asked before they are given out; dead ones are replaced."""
    engine = create_async_engine(url, pool_size=pool_size, max_overflow=max_overflow, hide_parameters=True)
    dialect = engine.sync_engine.dialect

    def lay_down(_connection: object, entry: ConnectionPoolEntry) -> None:
        entry.info[_IDLE_SINCE] = time.monotonic()

    def give_out(connection: Any, entry: ConnectionPoolEntry, _proxy: object) -> None:  # noqa: ANN401 - of the dialect
        if connection.driver_connection.is_closed():
            raise InvalidatePoolError
        # A new one has answered already.
        idle_s = time.monotonic() - entry.info.get(_IDLE_SINCE, time.monotonic())
        if idle_s > _TRUSTED_S:
            try:
                dialect.do_ping(connection)
            except (*NO_ANSWER, dialect.loaded_dbapi.Error) as error:
                raise InvalidatePoolError from error

    event.listen(engine.sync_engine, "checkin", lay_down)
    event.listen(engine.sync_engine, "checkout", give_out)
    return engine
