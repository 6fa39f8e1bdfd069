"""The tenant transaction: the one way to a tenant's data, the same on every tier.

async with tenants.transaction(context) as session:
    product = await session.scalar(select(Product).where(Product.sku == sku))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NoReturn, Protocol, TypeVar
from uuid import UUID

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from strata.platform.errors import UnavailableError
from strata.platform.settings import FenceSettings
from strata.tenancy import scoping
from strata.tenancy.cell.connection import TenantConnection, TransactionEndedError
from strata.tenancy.cell.door import Isolation, Refusal, entry_message
from strata.tenancy.cell.engines import CellEngines
from strata.tenancy.cell.fence_wait import FenceWait
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import (
    CapabilityRefusedError,
    CellClosedError,
    CellUnavailableError,
    CommitUnknownError,
    ConcurrentUpdateError,
    CrossTenantWriteError,
    PlacementUnsettledError,
    TenantClosingError,
    TenantReadOnlyError,
    TenantSuspendedError,
)
from strata.tenancy.model import TenantStatus

_ENTRY_TRIES = 8
_CONNECTION_TRIES = 64
_NOT_YOURS = (
    "tenants.transaction() commits when its block ends and rolls back when it raises; begin_nested() makes a savepoint."
)
_RENEWED = frozenset({"28P01", "28000", "3D000"})
"""The password or the database is not what it was when the pool was made: the catalog knows better."""
_POISONED = "26000"
"""A prepared statement is gone: SQL of this tenant or of the one before has deallocated it."""
_LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What asyncpg raises when a connection is gone; before the first statement that is never the caller's business.

InternalClientError: the server's farewell has come between two statements, and the socket's end not yet.
"""
_STARTING_UP = (asyncpg.CannotConnectNowError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError)


class ContextSource(Protocol):
    async def fresh(self, tenant_id: UUID) -> TenantContext:
        """The context as the catalog has it now, past every cache."""


class _OrmSession(Session):
    """Carries the ORM's layer of isolation; leaves the end of the transaction to `Tenants`."""

    def commit(self) -> None:
        raise TransactionEndedError(_NOT_YOURS)

    def rollback(self) -> None:
        raise TransactionEndedError(_NOT_YOURS)

    def _past_the_events(self, *_args: object, **_kwargs: object) -> NoReturn:
        message = "The bulk_ methods pass the tenant's stamp by; use session.execute(insert(...), rows)."
        raise CrossTenantWriteError(message)

    bulk_save_objects = bulk_insert_mappings = bulk_update_mappings = _past_the_events


class _ReadOnlyOrmSession(_OrmSession):
    def flush(self, *_args: object, **_kwargs: object) -> None:
        if self.new or self.dirty or self.deleted:
            message = "a reading session cannot write; use tenants.transaction()"
            raise TypeError(message)


scoping.install(_OrmSession)


class TenantReadSession(AsyncSession):
    """Reads one tenant's rows, in a READ ONLY transaction."""

    sync_session_class: type[Session] = _ReadOnlyOrmSession


class TenantSession(TenantReadSession):
    """Reads and writes one tenant's rows. Committed by `Tenants`, at the end of the block, and nowhere else."""

    sync_session_class = _OrmSession


S = TypeVar("S", bound=TenantReadSession)


class Tenants:
    """Opens sessions into tenants; one per process."""

    def __init__(self, engines: CellEngines, contexts: ContextSource, settings: FenceSettings) -> None:
        self._engines = engines
        self._contexts = contexts
        self._fence = FenceWait(contexts, self._is_open, settings)

    @asynccontextmanager
    async def transaction(
        self, context: TenantContext, *, isolation: Isolation = Isolation.READ_COMMITTED
    ) -> AsyncIterator[TenantSession]:
        """A session that commits when the block ends and rolls back when it raises.

        For a read-only tenant the transaction is READ ONLY in the database too. Errors: those of
        `strata.tenancy.errors`; above READ COMMITTED also ConcurrentUpdateError, after which the caller may run the
        block again.
        """
        async with self._session(TenantSession, context, isolation, read_only=False) as session:
            yield session

    @asynccontextmanager
    async def reading(
        self, context: TenantContext, *, isolation: Isolation = Isolation.READ_COMMITTED
    ) -> AsyncIterator[TenantReadSession]:
        async with self._session(TenantReadSession, context, isolation, read_only=True) as session:
            yield session

    @asynccontextmanager
    async def _session(
        self, kind: type[S], context: TenantContext, isolation: Isolation, *, read_only: bool
    ) -> AsyncIterator[S]:
        connection, driver, context = await self._enter(context, isolation, read_only=read_only)
        block_done = False
        try:
            session = kind(connection, expire_on_commit=False, info={"tenant_id": context.id})
            try:
                with _hanging_up(driver):
                    # Begun without a greenlet: the transaction is there already, nothing is sent.
                    transaction = session.sync_session.begin()
                    yield session
                    block_done = True
                    await greenlet_spawn(transaction.commit)
            except BaseException:
                await session.close()  # which rolls back
                raise
            else:
                # Nothing is left that could wait: no greenlet is made for it.
                session.sync_session.close()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == _POISONED:
                driver.terminate()
            named = _named(error, context, committing=block_done)
            if named is None:
                raise
            raise named from error
        except asyncpg.InternalClientError as error:
            # The one kind of loss that SQLAlchemy does not wrap.
            raise (CommitUnknownError() if block_done else CellUnavailableError(context.placement.cell)) from error
        finally:
            if driver.is_idle():
                # As it was taken. Going back to the pool does not wait, so that nothing can cancel it half way.
                await connection.close()
            else:
                await asyncio.shield(_give_back(connection, driver))

    async def _enter(
        self, context: TenantContext, isolation: Isolation, *, read_only: bool
    ) -> tuple[AsyncConnection, TenantConnection, TenantContext]:
        """Come to stand in the tenant's home, wherever it is by then; with the context that led there.

        Nothing of the caller's has run yet.
        """
        _admissible(context)
        for _ in range(_ENTRY_TRIES):
            name = context.placement.cell
            # The tenant may have been made read-only since the caller's context was cached.
            read_only = read_only or context.status is TenantStatus.READ_ONLY
            try:
                return *await self._try_enter(context, isolation, read_only=read_only), context
            except asyncpg.PostgresError as error:
                match error.sqlstate:
                    case Refusal.STALE_EPOCH:
                        context = _admissible(await self._contexts.fresh(context.id))
                    case Refusal.FENCED:
                        context = _admissible(await self._fence.wait(context))
                    case Refusal.SERIALIZATION:
                        continue
                    case Refusal.TIMELINE:
                        raise CellClosedError(name) from error
                    case Refusal.CAPABILITY:
                        await self._engines.forget(name)
                        raise CapabilityRefusedError(name) from error
                    case _ if isinstance(error, _STARTING_UP):
                        raise CellUnavailableError(name) from error
                    case _:
                        raise
        raise PlacementUnsettledError(context.id)

    async def _try_enter(
        self, context: TenantContext, isolation: Isolation, *, read_only: bool
    ) -> tuple[AsyncConnection, TenantConnection]:
        name = context.placement.cell
        home = await self._engines.open(name)
        message = entry_message(home.cell.secret, context.id, context.placement, isolation, read_only=read_only)
        # After a restart of the server a pool holds dead connections; each is met once and replaced.
        for _ in range(_CONNECTION_TRIES):
            connection = await self._connect(name)
            driver = _driver_of(connection)
            try:
                await driver.enter(message)
            except BaseException as error:
                await asyncio.shield(_give_back(connection, driver))
                if not isinstance(error, _LOST):
                    raise
            else:
                return connection, driver
        raise CellUnavailableError(name)

    async def _connect(self, cell: str, *, again: bool = True) -> AsyncConnection:
        home = await self._engines.open(cell)
        try:
            return await home.engine.connect()
        except PoolTimeoutError as error:
            detail = "All connections to this account's database are busy; try again in a moment."
            raise UnavailableError(detail) from error
        except (DBAPIError, TimeoutError, OSError) as error:
            if again and getattr(getattr(error, "orig", None), "sqlstate", None) in _RENEWED:
                await self._engines.forget(cell)
                return await self._connect(cell, again=False)
            raise CellUnavailableError(cell) from error

    async def _is_open(self, context: TenantContext) -> bool:
        """Whether the tenant's fence lets a transaction in right now."""
        try:
            connection, driver = await self._try_enter(context, Isolation.READ_COMMITTED, read_only=True)
        except asyncpg.PostgresError as error:
            return error.sqlstate != Refusal.FENCED
        await asyncio.shield(_give_back(connection, driver))
        return True


def _admissible(context: TenantContext) -> TenantContext:
    """Routing turns the suspended and closing away; nor do they get in by a job, or by a retry with a newer context."""
    match context.status:
        case TenantStatus.SUSPENDED:
            raise TenantSuspendedError(context.id, context.status_reason)
        case TenantStatus.CLOSING | TenantStatus.CLOSED:
            raise TenantClosingError(context.id)
        case _:
            return context


@contextmanager
def _hanging_up(driver: TenantConnection) -> Iterator[None]:
    """End the connection at once when the task is cancelled.

    The protocol may then stand in mid-message, and what the next tenant must never meet is a connection in an unknown
    state. PostgreSQL rolls back what it was doing.
    """
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit):
        driver.terminate()
        raise


async def _give_back(connection: AsyncConnection, driver: TenantConnection) -> None:
    """Return the connection to its pool, or throw it away when it is not as it was taken."""
    try:
        await driver.leave()
    except _LOST:
        driver.terminate()
    if driver.is_closed():
        await connection.invalidate()
    await connection.close()


def _driver_of(connection: AsyncConnection) -> TenantConnection:
    """Without `get_raw_connection`, which makes a greenlet to read an attribute."""
    return connection.sync_connection.connection.driver_connection  # type: ignore[union-attr, return-value]


def _driver_error(error: DBAPIError) -> BaseException | None:
    """asyncpg's exception, beneath SQLAlchemy's adapter's, beneath SQLAlchemy's."""
    return error.orig.__cause__ if error.orig is not None else None


def _named(error: DBAPIError, context: TenantContext, *, committing: bool) -> Exception | None:
    """Our name for what the database said, where we have one."""
    if error.connection_invalidated or isinstance(_driver_error(error), _LOST + _STARTING_UP):
        return CommitUnknownError() if committing else CellUnavailableError(context.placement.cell)
    match getattr(error.orig, "sqlstate", None):
        case "25006" if context.status is TenantStatus.READ_ONLY:
            return TenantReadOnlyError(context.id, context.status_reason)
        case "40001" | "40P01":
            return ConcurrentUpdateError()
        case _:
            return None
