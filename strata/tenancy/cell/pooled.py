"""A connection of a cell's pool: lent to one transaction after the other, to SQLAlchemy each time as if new."""

from __future__ import annotations

from typing import Any, NoReturn

from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection

from strata.tenancy.cell.connection import EnteredTransaction, TenantConnection, TransactionEndedError
from strata.tenancy.cell.spending import Spent


class Pooled:
    """The connection, and what its use so far has made of the back end behind it."""

    __slots__ = (
        "_engine",
        "_fairy",
        "_kept",
        "_lease",
        "adapter",
        "driver",
        "idle_since",
        "opened_at",
        "schema_name",
        "schemas",
        "transactions",
        "waited_ns",
    )

    def __init__(self, engine: AsyncEngine, connection: AsyncConnection, now: float) -> None:
        self._engine = engine
        # SQLAlchemy made it and takes it down; nobody else ever sees it.
        self._kept = connection
        # Without `get_raw_connection`, which makes a greenlet to read an attribute.
        fairy = connection.sync_connection.connection  # type: ignore[union-attr]
        self._fairy: PoolProxiedConnection = fairy
        self.adapter: Any = fairy.dbapi_connection
        self.driver: TenantConnection = fairy.driver_connection  # type: ignore[assignment]
        self._lease = _Lease(fairy)
        self.opened_at = self.idle_since = now
        self.transactions = 0
        self.schema_name = ""
        self.schemas: set[str] = set()
        self.waited_ns = 0
        """How long its borrower had to wait for it."""

    def lend(self) -> AsyncConnection:
        """A connection for one transaction. Closed after it, so that whoever kept it, or its session, holds nothing."""
        self._lease.spent = Spent()
        return AsyncConnection(self._engine, Connection(self._engine.sync_engine, self._lease, _allow_revalidate=False))

    @property
    def spent(self) -> Spent:
        """By the transaction that it is lent to."""
        return self._lease.spent

    @property
    def entered(self) -> EnteredTransaction | None:
        """What SQLAlchemy would commit; None when no statement has been run."""
        # SQLAlchemy has no public name for it.
        transaction: EnteredTransaction | None = self.adapter._transaction  # noqa: SLF001
        return transaction

    def forget_entered(self) -> None:
        """It has been committed, or will be: SQLAlchemy has nothing left to send."""
        self.adapter._transaction = None  # noqa: SLF001

    def is_as_made(self) -> bool:
        """Not in AUTOCOMMIT, say: in which SQLAlchemy commits nothing, and the next tenant's writes would be lost unheard."""
        adapter = self.adapter
        return adapter.isolation_level is None and not adapter.readonly and not adapter.deferrable

    def is_clean(self) -> bool:
        """As it was taken: the last guard between one tenant's transaction and the next one's."""
        return self.driver.is_idle() and self.entered is None and self.is_as_made()

    def statements(self) -> list[str]:
        """The texts that are prepared on it, the one last used first."""
        cache = self.adapter._prepared_statement_cache  # noqa: SLF001
        held = [] if cache is None else list(cache._data.values())  # noqa: SLF001
        return [text for text, _, _ in sorted(held, key=lambda each: each[2], reverse=True)]

    async def prepare(self, statement: str) -> None:
        """As SQLAlchemy will look for it."""
        await self.adapter._prepare(statement, 0)  # noqa: SLF001

    async def close(self) -> None:
        if self.driver.is_closed() and self._fairy.is_valid:
            await self._kept.invalidate()
        await self._kept.close()


class _Lease(PoolProxiedConnection):
    """What SQLAlchemy's Connection takes for a pool's loan. Closing it gives nothing back: the pool's owner does."""

    __slots__ = ("_fairy", "_streams", "dbapi_connection", "driver_connection", "spent")

    def __init__(self, fairy: PoolProxiedConnection) -> None:
        self._fairy = fairy
        self.spent = Spent()
        self._streams: list[Any] = []
        self.dbapi_connection = fairy.dbapi_connection
        self.driver_connection: Any = fairy.driver_connection

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as SQLAlchemy's own does
        return getattr(self.dbapi_connection, name)

    @property
    def is_valid(self) -> bool:
        return not self.driver_connection.is_closed()

    @property
    def is_detached(self) -> bool:
        return False

    @property
    def info(self) -> dict[Any, Any]:
        return self._fairy.info

    @property
    def record_info(self) -> dict[Any, Any] | None:
        return self._fairy.record_info

    def cursor(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - PEP 249 says no more
        cursor = self._fairy.cursor(*args, **kwargs)
        if cursor.server_side:
            self._streams.append(cursor)
        return cursor

    def commit(self) -> None:
        self._fairy.commit()

    def rollback(self) -> None:
        self._fairy.rollback()

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        # In SQLAlchemy's way, and in its greenlet: a statement that still runs is cancelled before the socket goes.
        self._fairy.invalidate(e, soft)

    def detach(self) -> None:
        message = "A tenant's connection stays with its pool."
        raise TypeError(message)

    def close(self) -> None:
        # A result still streaming asks the driver for more: of the next tenant's transaction, which that would abort.
        for stream in self._streams:
            stream.close()
            stream._cursor = _ENDED  # noqa: SLF001 - SQLAlchemy's adapter has no public name for what it reads from
        self._streams.clear()

    def _close_special(self, **_options: bool) -> None:
        """What Connection calls instead of close() when it has just ended a transaction by itself."""
        self.close()


class _EndedStream:
    async def fetch(self, *_args: object) -> NoReturn:
        message = "The transaction that this result was streaming from has ended; read it within its block."
        raise TransactionEndedError(message)


_ENDED = _EndedStream()
