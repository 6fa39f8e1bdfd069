"""The tenant transaction: the one way to a tenant's data, the same on every tier.

async with tenants.transaction(context) as session:
    product = await session.scalar(select(Product).where(Product.sku == sku))
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from time import perf_counter_ns
from types import TracebackType
from typing import ClassVar, Generic, NoReturn, TypeVar
from uuid import UUID

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from strata.platform.database.failures import LOST, NO_ANSWER
from strata.platform.settings import FenceSettings
from strata.tenancy import scoping
from strata.tenancy.audit.recording import follow_savepoints, pending_statement
from strata.tenancy.cell.connection import TransactionEndedError
from strata.tenancy.cell.door import Isolation
from strata.tenancy.cell.engines import CellEngines
from strata.tenancy.cell.pool import CellPool
from strata.tenancy.cell.pooled import Pooled
from strata.tenancy.context import TenantContext
from strata.tenancy.entrance import STARTING_UP, ContextSource, Entrance, admissible
from strata.tenancy.errors import (
    CellUnavailableError,
    CommitUnknownError,
    ConcurrentUpdateError,
    CrossTenantWriteError,
    TenantReadOnlyError,
)
from strata.tenancy.model import Placement, TenantStatus
from strata.tenancy.replicas.choice import ReplicaChoice, StandbyWay
from strata.tenancy.replicas.client import CLIENT
from strata.tenancy.replicas.entering import StandbyLostError
from strata.tenancy.usage.meter import UsageMeter

_NOT_YOURS = (
    "tenants.transaction() commits when its block ends and rolls back when it raises; begin_nested() makes a savepoint."
)
_POISONED = "26000"
"""A prepared statement is gone: SQL of this tenant or of the one before has deallocated it."""


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
follow_savepoints(_OrmSession)


class TenantReadSession(AsyncSession):
    """Reads one tenant's rows, in a READ ONLY transaction."""

    sync_session_class: type[Session] = _ReadOnlyOrmSession


class TenantSession(TenantReadSession):
    """Reads and writes one tenant's rows. Committed by `Tenants`, at the end of the block, and nowhere else."""

    sync_session_class = _OrmSession


S = TypeVar("S", bound=TenantReadSession)


class Tenants:
    """Opens sessions into tenants; one per process."""

    def __init__(
        self,
        engines: CellEngines,
        contexts: ContextSource,
        settings: FenceSettings,
        written: Callable[[str], None] = lambda _cell: None,
        standbys: ReplicaChoice | None = None,
        meter: UsageMeter | None = None,
    ) -> None:
        """`written` is told the cell's name after every transaction that may have written; it neither waits nor fails.

        With `standbys`, `reading()` goes to one of those where the current request allows it. What transactions cost is
        counted in `meter`.
        """
        self._meter = UsageMeter() if meter is None else meter
        self._entrance = Entrance(engines, contexts, settings)
        self._written = written
        self._standbys = standbys

    def transaction(
        self, context: TenantContext, *, isolation: Isolation = Isolation.READ_COMMITTED
    ) -> AbstractAsyncContextManager[TenantSession, None]:
        """A session that commits when the block ends and rolls back when it raises.

        For a read-only tenant the transaction is READ ONLY in the database too. Errors: those of
        `strata.tenancy.errors`; above READ COMMITTED also ConcurrentUpdateError, after which the caller may run the
        block again.
        """
        return _Transaction(self._entrance, TenantSession, context, isolation, self._meter, self._written)

    def look_again(self, tenant_id: UUID) -> None:
        """The tenant's cut-over is over, it is said: those who wait for it need not wait for their next look."""
        self._entrance.look_again(tenant_id)

    async def make_ready(self, context: TenantContext, coming: Placement) -> None:
        """Open connections to where the tenant will soon live, so that its first requests there do not wait for them."""
        await self._entrance.make_ready(context, coming)

    def reading(
        self, context: TenantContext, *, isolation: Isolation = Isolation.READ_COMMITTED
    ) -> AbstractAsyncContextManager[TenantReadSession, None]:
        way = None if self._standbys is None or isolation is Isolation.SERIALIZABLE else self._standbys.choose(context)
        return _Reading(self._entrance, TenantReadSession, context, isolation, self._meter, way)


class _Block(Generic[S]):
    """One tenant transaction: enter, lend the session, end it, give the connection back."""

    read_only: ClassVar[bool] = False
    _context: TenantContext
    _pool: CellPool
    _pooled: Pooled
    _connection: AsyncConnection
    _session: S
    _last = ""
    """A statement that goes with the COMMIT."""

    def __init__(
        self, entrance: Entrance, kind: type[S], context: TenantContext, isolation: Isolation, meter: UsageMeter
    ) -> None:
        self._entrance = entrance
        self._meter = meter
        self._kind = kind
        self._given = context
        self._isolation = isolation

    async def __aenter__(self) -> S:
        self._pool, self._pooled, self._context = await self._entrance.enter(
            self._given, self._isolation, read_only=self.read_only
        )
        return self._lent()

    def _lent(self) -> S:
        self._connection = self._pooled.lend()
        # Rules of the tenant hold wherever its rows are written, however deep.
        self._session = self._kind(
            self._connection, expire_on_commit=False, info={"tenant_id": self._context.id, "context": self._context}
        )
        return self._session

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._end()
            else:
                await self._undo(error)
                self._raise_named(error, committing=False)
        finally:
            try:
                # By now this sends nothing. The session, and the connection it gives out, are of no use from here on.
                self._connection.sync_connection.close()  # type: ignore[union-attr]
            finally:
                self._meter.spent(self._pool.name, self._context.id, self._pooled.spent, self._pooled.waited_ns)
                await self._give_back()

    async def _end(self) -> None:
        try:
            await self._commit()
        except BaseException as error:
            await self._undo(error)
            self._raise_named(error, committing=True)
            raise

    async def _commit(self) -> None:
        session = self._session.sync_session
        if session.in_nested_transaction():
            # Left open by the block: SQLAlchemy releases it, which takes a greenlet to wait in.
            await self._commit_through_orm()
        else:
            if session.new or session.dirty or session.deleted:
                await self._session.flush()
            await self._commit_sent()
        # The transaction is over: SQLAlchemy has nothing to send, so no greenlet is made for it to wait in.
        session.close()

    async def _commit_sent(self) -> None:
        """COMMIT past SQLAlchemy, which would make a greenlet to wait in."""
        entered = self._pooled.entered
        if entered is not None:
            begun_ns = perf_counter_ns()
            try:
                await entered.commit(self._last)
                self._pooled.spent.database_ns += perf_counter_ns() - begun_ns
            except NO_ANSWER:
                # It says the same again, to SQLAlchemy, whose callers know its exceptions.
                await self._commit_through_orm()
                raise
            self._pooled.forget_entered()
        elif not (self._pooled.driver.is_untouched and self._pooled.is_as_made()):
            # By session.close() and its like. Silent, it would be taken for written.
            message = "The block closed its session or changed its connection, so nothing was written."
            raise TransactionEndedError(message)

    async def _commit_through_orm(self) -> None:
        transaction = self._session.sync_session.get_transaction()
        if transaction is not None:
            await greenlet_spawn(transaction.commit)

    async def _undo(self, error: BaseException) -> None:
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            # The protocol may stand in mid-message, and what the next tenant must never meet is a connection in an
            # unknown state. PostgreSQL rolls back what it was doing.
            self._pooled.driver.terminate()
        elif isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _POISONED:
            self._pooled.driver.terminate()
        await self._session.close()  # which rolls back

    def _raise_named(self, error: BaseException, *, committing: bool) -> None:
        named = _named(error, self._context, committing=committing)
        if named is not None:
            raise named from error

    async def _give_back(self) -> None:
        pooled = self._pooled
        if pooled.driver.is_idle():
            # As it was taken. Giving it back does not wait, so that nothing can cancel it half way.
            self._pool.release(pooled, self._context.id)
        else:
            await self._entrance.leave(self._pool, pooled, self._context)


class _Transaction(_Block[TenantSession]):
    def __init__(
        self,
        entrance: Entrance,
        kind: type[TenantSession],
        context: TenantContext,
        isolation: Isolation,
        meter: UsageMeter,
        written: Callable[[str], None],
    ) -> None:
        super().__init__(entrance, kind, context, isolation, meter)
        self._written = written

    async def _commit(self) -> None:
        audit = pending_statement(self._session)
        if audit is not None:
            session = self._session.sync_session
            if session.new or session.dirty or session.deleted:
                await self._session.flush()
            if self._pooled.entered is None or session.in_nested_transaction():
                # Nothing to travel with, or a savepoint that the block left open and that SQLAlchemy ends.
                await (await self._session.connection()).exec_driver_sql(audit)
            else:
                self._last = audit
        await super()._commit()

    async def _end(self) -> None:
        # Without a statement there is nothing to tell of, and no COMMIT that tells.
        client = None if self._pooled.entered is None else CLIENT.get()
        if client is not None:
            client.about_to_write(self._pooled.driver)
        await super()._end()
        if client is not None:
            client.has_written(self._pooled.driver, self._entrance.secret_of(self._pool.name), self._context)
        self._written(self._context.placement.cell)


class _Reading(_Block[TenantReadSession]):
    """The answer does not wait for the COMMIT of a transaction that has written nothing: it is sent behind it."""

    read_only = True
    _committing = False

    def __init__(
        self,
        entrance: Entrance,
        kind: type[TenantReadSession],
        context: TenantContext,
        isolation: Isolation,
        meter: UsageMeter,
        way: StandbyWay | None,
    ) -> None:
        super().__init__(entrance, kind, context, isolation, meter)
        self._way = way

    async def __aenter__(self) -> TenantReadSession:
        entered = None if self._way is None else await self._entrance.enter_standby(self._way, admissible(self._given))
        if entered is None:
            self._way = None
            return await super().__aenter__()
        self._pool, self._pooled = entered
        self._context = self._given
        return self._lent()

    def _raise_named(self, error: BaseException, *, committing: bool) -> None:
        if self._way is not None and isinstance(error, (DBAPIError, asyncpg.InternalClientError)):
            # Whatever it is: if it is not the standby's own trouble, the primary says the same.
            self._way.lost()
            raise StandbyLostError(self._pool.name) from error
        super()._raise_named(error, committing=committing)

    async def _commit_sent(self) -> None:
        entered = self._pooled.entered
        if entered is None or self._isolation is Isolation.SERIALIZABLE:
            # Of a SERIALIZABLE one, COMMIT may yet say that what was read never stood so.
            await super()._commit_sent()
            return
        entered.check()
        self._pooled.forget_entered()
        self._committing = True

    async def _give_back(self) -> None:
        if self._way is not None:
            self._way.left(self._pooled.driver)
        if self._committing:
            self._entrance.commit_behind(self._pool, self._pooled, self._context)
        else:
            await super()._give_back()


def _driver_error(error: DBAPIError) -> BaseException | None:
    """asyncpg's exception, beneath SQLAlchemy's adapter's, beneath SQLAlchemy's."""
    return error.orig.__cause__ if error.orig is not None else None


def _named(error: BaseException, context: TenantContext, *, committing: bool) -> Exception | None:
    """Our name for what the database said, where we have one."""
    if isinstance(error, asyncpg.InternalClientError):
        # The one kind of loss that SQLAlchemy does not wrap.
        return CommitUnknownError() if committing else CellUnavailableError(context.placement.cell)
    if not isinstance(error, DBAPIError):
        return None
    if error.connection_invalidated or isinstance(_driver_error(error), LOST + STARTING_UP):
        return CommitUnknownError() if committing else CellUnavailableError(context.placement.cell)
    match getattr(error.orig, "sqlstate", None):
        case "25006" if context.status is TenantStatus.READ_ONLY:
            return TenantReadOnlyError(context.id, context.status_reason)
        case "40001" | "40P01":
            return ConcurrentUpdateError()
        case _:
            return None
