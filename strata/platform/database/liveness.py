"""Whether a pooled connection still lives, in one round trip.

SQLAlchemy's own `pool_pre_ping` takes three with asyncpg (a transaction about the question, for poolers between that we do
not have here): as many as all the rest of a short transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from strata.platform.database.failures import NO_ANSWER

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlalchemy.pool import ConnectionPoolEntry

_GIVEN_OUT = "given out before"


def engine_asking_first(url: URL, *, pool_size: int, max_overflow: int) -> AsyncEngine:
    """Each connection is asked before it is given out again; a dead one is replaced, and with it all that are as old."""
    engine = create_async_engine(url, pool_size=pool_size, max_overflow=max_overflow, hide_parameters=True)

    def ask(connection: Any, entry: ConnectionPoolEntry, _proxy: object) -> None:  # noqa: ANN401 - the dialect's own type
        if not entry.info.get(_GIVEN_OUT):
            # A new one has answered just now. (What an entry carries is dropped with its connection.)
            entry.info[_GIVEN_OUT] = True
            return
        try:
            connection.run_async(lambda driver: driver.execute("SELECT"))
        except NO_ANSWER as error:
            raise InvalidatePoolError from error

    event.listen(engine.sync_engine, "checkout", ask)
    return engine
