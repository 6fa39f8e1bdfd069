"""The tenant transaction: the one way to a tenant's data, the same on every tier.

async with tenants.transaction(context) as session:
    product = await session.scalar(select(Product).where(Product.sku == sku))
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import ClassVar, Generic, NoReturn, Protocol, TypeVar
from uuid import UUID

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from strata.platform.settings import FenceSettings
from strata.tenancy import scoping
from strata.tenancy.cell.connection import TransactionEndedError
from strata.tenancy.cell.door import CellSecret, Isolation, Refusal, entry_message
from strata.tenancy.cell.engines import CellEngines, OpenCell
from strata.tenancy.cell.fence_wait import FenceWait
from strata.tenancy.cell.pool import CellPool
from strata.tenancy.cell.pooled import Pooled
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import (
    CapabilityRefusedError,
    CellClosedError,
    CellUnavailableError,
    CommitUnknownError,
    ConcurrentUpdateError,
    CrossTenantWriteError,
    MoveInProgressError,
    PlacementUnsettledError,
    TenantClosingError,
    TenantReadOnlyError,
    TenantSuspendedError,
)
from strata.tenancy.model import TenantStatus
from strata.tenancy.replicas.choice import ReplicaChoice, StandbyWay
from strata.tenancy.replicas.client import CLIENT
from strata.tenancy.replicas.entering import StandbyLostError, enter_standby

_ENTRY_TRIES = 8
_CONNECTION_TRIES = 8
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

    def __init__(
        self,
        engines: CellEngines,
        contexts: ContextSource,
        settings: FenceSettings,
        written: Callable[[str], None] = lambda _cell: None,
        standbys: ReplicaChoice | None = None,
    ) -> None:
        """`written` is told the cell's name after every transaction that may have written; it neither waits nor fails.

        With `standbys`, `reading()` goes to one of those where the current request allows it.
        """
        self._entrance = _Entrance(engines, contexts, settings)
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
        return _Transaction(self._entrance, TenantSession, context, isolation, self._written)

    def reading(
        self, context: TenantContext, *, isolation: Isolation = Isolation.READ_COMMITTED
    ) -> AbstractAsyncContextManager[TenantReadSession, None]:
        way = None if self._standbys is None or isolation is Isolation.SERIALIZABLE else self._standbys.choose(context)
        return _Reading(self._entrance, TenantReadSession, context, isolation, way)


class _Block(Generic[S]):
    """One tenant transaction: enter, lend the session, end it, give the connection back."""

    read_only: ClassVar[bool] = False
    _context: TenantContext
    _pool: CellPool
    _pooled: Pooled
    _connection: AsyncConnection
    _session: S

    def __init__(self, entrance: _Entrance, kind: type[S], context: TenantContext, isolation: Isolation) -> None:
        self._entrance = entrance
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
        self._session = self._kind(self._connection, expire_on_commit=False, info={"tenant_id": self._context.id})
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
            # By now this sends nothing. The session, and the connection it gives out, are of no use from here on.
            self._connection.sync_connection.close()  # type: ignore[union-attr]
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
            try:
                await entered.commit()
            except (asyncpg.PostgresError, *_LOST):
                # It says the same again, to SQLAlchemy, whose callers know its exceptions.
                await self._commit_through_orm()
                raise
            self._pooled.forget_entered()

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
        entrance: _Entrance,
        kind: type[TenantSession],
        context: TenantContext,
        isolation: Isolation,
        written: Callable[[str], None],
    ) -> None:
        super().__init__(entrance, kind, context, isolation)
        self._written = written

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
        entrance: _Entrance,
        kind: type[TenantReadSession],
        context: TenantContext,
        isolation: Isolation,
        way: StandbyWay | None,
    ) -> None:
        super().__init__(entrance, kind, context, isolation)
        self._way = way

    async def __aenter__(self) -> TenantReadSession:
        entered = None if self._way is None else await self._entrance.enter_standby(self._way, _admissible(self._given))
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


class _Entrance:
    """The way into a tenant's home, wherever it is by then, and out again."""

    def __init__(self, engines: CellEngines, contexts: ContextSource, settings: FenceSettings) -> None:
        self._engines = engines
        self._contexts = contexts
        self._fence = FenceWait(contexts, self._is_open, settings)

    async def enter(
        self, context: TenantContext, isolation: Isolation, *, read_only: bool
    ) -> tuple[CellPool, Pooled, TenantContext]:
        """Come to stand in the tenant's home; with the context that led there. Nothing of the caller's has run yet."""
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
                        context = _admissible(await self._newer_than(context))
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

    async def enter_standby(self, way: StandbyWay, context: TenantContext) -> tuple[CellPool, Pooled] | None:
        return await enter_standby(self._engines, way, context)

    def secret_of(self, pool: str) -> CellSecret | None:
        opened = self._engines.opened(pool)
        return None if opened is None else opened.cell.secret

    async def leave(self, pool: CellPool, pooled: Pooled, context: TenantContext) -> None:
        """End what is still open and give the connection back, also when the caller is cancelled meanwhile."""
        await asyncio.shield(pool.in_background(_leave(pool, pooled, context)))

    def commit_behind(self, pool: CellPool, pooled: Pooled, context: TenantContext) -> None:
        """Commit, with nobody waiting for it."""
        _ = pool.in_background(_leave(pool, pooled, context, commit=True))

    async def _try_enter(
        self, context: TenantContext, isolation: Isolation, *, read_only: bool
    ) -> tuple[CellPool, Pooled]:
        name = context.placement.cell
        for _ in range(_CONNECTION_TRIES):
            home, pooled = await self._acquire(context)
            message = entry_message(home.cell.secret, context.id, context.placement, isolation, read_only=read_only)
            try:
                await pooled.driver.enter(message)
            except BaseException as error:
                await self.leave(home.pool, pooled, context)
                if not isinstance(error, _LOST):
                    raise
                home.pool.mistrust_idle()
            else:
                return home.pool, pooled
        raise CellUnavailableError(name)

    async def _acquire(self, context: TenantContext, *, again: bool = True) -> tuple[OpenCell, Pooled]:
        name = context.placement.cell
        home = self._engines.opened(name) or await self._engines.open(name)
        try:
            return home, await home.pool.acquire(context.id, context.placement.schema_name)
        except DBAPIError as error:
            if again and getattr(error.orig, "sqlstate", None) in _RENEWED:
                await self._engines.forget(name)
                return await self._acquire(context, again=False)
            raise CellUnavailableError(name) from error

    async def _newer_than(self, refused: TenantContext) -> TenantContext:
        context = await self._contexts.fresh(refused.id)
        if context.placement != refused.placement:
            return context
        # A cut-over has opened the new home, and the catalog has yet to say so: the old one is refused, and the newest.
        try:
            return await self._fence.wait(context)
        except MoveInProgressError:
            raise PlacementUnsettledError(context.id) from None

    async def _is_open(self, context: TenantContext) -> bool:
        """Whether the tenant's fence lets a transaction in right now."""
        try:
            pool, pooled = await self._try_enter(context, Isolation.READ_COMMITTED, read_only=True)
        except asyncpg.PostgresError as error:
            return error.sqlstate not in {Refusal.FENCED, Refusal.STALE_EPOCH}
        await self.leave(pool, pooled, context)
        return True


async def _leave(pool: CellPool, pooled: Pooled, context: TenantContext, *, commit: bool = False) -> None:
    try:
        await pooled.driver.leave(commit=commit)
    except _LOST:
        pooled.driver.terminate()
    pool.release(pooled, context.id)


def _admissible(context: TenantContext) -> TenantContext:
    """Routing turns the suspended and closing away; nor do they get in by a job, or by a retry with a newer context."""
    match context.status:
        case TenantStatus.SUSPENDED:
            raise TenantSuspendedError(context.id, context.status_reason)
        case TenantStatus.CLOSING | TenantStatus.CLOSED:
            raise TenantClosingError(context.id)
        case _:
            return context


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
    if error.connection_invalidated or isinstance(_driver_error(error), _LOST + _STARTING_UP):
        return CommitUnknownError() if committing else CellUnavailableError(context.placement.cell)
    match getattr(error.orig, "sqlstate", None):
        case "25006" if context.status is TenantStatus.READ_ONLY:
            return TenantReadOnlyError(context.id, context.status_reason)
        case "40001" | "40P01":
            return ConcurrentUpdateError()
        case _:
            return None
