"""A connection on which no transaction begins except into a tenant."""

from __future__ import annotations

from typing import Any

import asyncpg

from strata.platform.database.failures import LOST
from strata.platform.errors import StrataError
from strata.tenancy.errors import NoTenantEnteredError
from strata.tenancy.replicas.door import COMMIT_AND_TELL, TELL_POSITION


class TransactionEndedError(StrataError):
    """The transaction did not end where it had to; a programming error."""

    code = "transaction-ended"
    title = "Transaction already ended"


class TenantConnection(asyncpg.Connection):
    """asyncpg's connection, for pools of tenant work.

    SQLAlchemy asks its driver for `transaction()` before the first statement; here that yields the transaction which
    `enter` has begun, or refuses. So a session used outside `tenants.transaction`, or after a commit in mid-request,
    reaches no data: nothing ever falls back.
    """

    __slots__ = ("_entered", "_sealed_off", "_wants_position", "position")

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - asyncpg's own signature
        super().__init__(*args, **kwargs)
        self._entered = False
        self._sealed_off = False
        self._wants_position = False
        self.position: str | None = None
        """How far the log had come behind the last commit that was asked to tell."""

    def seal_off(self) -> None:
        """From now on only `enter` begins transactions. Before, SQLAlchemy may ask the server for its version."""
        self._sealed_off = True

    async def enter(self, message: str) -> None:
        """Send the entry message; on a refusal the transaction is gone again and the error is PostgreSQL's."""
        try:
            await self.execute(message)
        except asyncpg.PostgresError:
            if not self.is_closed():
                await self.execute("ROLLBACK")
            raise
        except BaseException:
            # Cancelled, or the answer was lost: whether the transaction has begun is unknown.
            self.terminate()
            raise
        self._entered = True

    def ask_position(self) -> None:
        """Have the COMMIT that comes tell how far the log has come behind it, without a round trip more."""
        self._wants_position, self.position = True, None

    async def commit(self, last: str = "") -> str:
        """PostgreSQL's word for what became of it: COMMIT, or ROLLBACK after a failed statement.

        `last`: a statement that travels in the same message; if it fails, nothing is committed, and its error is raised.
        """
        if not self._wants_position:
            return await self._end(f"{last};COMMIT" if last else "COMMIT")
        self._wants_position = False
        self.add_log_listener(_note_position)
        try:
            ended = await self._end(f"{last};{COMMIT_AND_TELL}" if last else COMMIT_AND_TELL)
        finally:
            self.remove_log_listener(_note_position)
        return ended if ended == "ROLLBACK" else "COMMIT"

    async def _end(self, message: str) -> str:
        try:
            return await self.execute(message)
        except asyncpg.InFailedSQLTransactionError:
            # Of a message of several statements the first one says so, and the COMMIT in it was never reached.
            return await self.execute("ROLLBACK")

    def is_idle(self) -> bool:
        """Open, and in no transaction, entered or other."""
        return not self._entered and not self.is_closed() and not self.is_in_transaction()

    @property
    def is_untouched(self) -> bool:
        """Entered, and no statement has been run."""
        return self._entered

    async def leave(self, *, commit: bool = False) -> None:
        """End a transaction that SQLAlchemy knows nothing of, or no longer."""
        self._entered = False
        if not self.is_closed() and self.is_in_transaction():
            await self.execute("COMMIT" if commit else "ROLLBACK")

    def transaction(self, *, isolation: Any = None, readonly: Any = False, deferrable: Any = False) -> Any:  # noqa: ANN401
        if not self._sealed_off:
            return super().transaction(isolation=isolation, readonly=readonly, deferrable=deferrable)
        if not self._entered:
            message = "A statement was sent outside of tenants.transaction(); no tenant, no session."
            raise NoTenantEnteredError(message)
        self._entered = False
        return EnteredTransaction(self)


def _note_position(connection: Any, message: Any) -> None:  # noqa: ANN401 - asyncpg's callback
    """Called before the COMMIT's caller goes on: asyncio runs what was scheduled first, first."""
    if message.sqlstate == TELL_POSITION:
        connection.position = message.message


class EnteredTransaction:
    """The transaction that `enter` began, handed to SQLAlchemy to end."""

    __slots__ = ("_connection", "_failure")

    def __init__(self, connection: TenantConnection) -> None:
        self._connection = connection
        self._failure: Exception | None = None

    async def start(self) -> None:
        """Began with `enter`."""

    def check(self) -> None:
        """Whether it still stands."""
        if not self._connection.is_in_transaction():
            message = "A statement within the block ended its transaction; what came before it may be written, the rest is not."
            raise TransactionEndedError(message)

    async def commit(self, last: str = "") -> None:
        """Asked again after a failure, it fails the same. `last`: a statement to run before, in the same message."""
        if self._failure is not None:
            raise self._failure
        try:
            await self._commit(last)
        except Exception as error:
            self._failure = error
            raise

    async def _commit(self, last: str) -> None:
        self.check()
        # PostgreSQL answers a COMMIT after a failed statement with ROLLBACK and no error: whoever swallowed the failure
        # would believe that the rest was written.
        if await self._connection.commit(last) != "COMMIT":
            message = (
                "A statement in the block failed, its error was caught, and so nothing was written; use begin_nested()."
            )
            raise TransactionEndedError(message)

    async def rollback(self) -> None:
        # A connection that is gone has been rolled back by PostgreSQL; saying so again would hide why it went.
        if not self._connection.is_closed():
            try:
                await self._connection.execute("ROLLBACK")
            except LOST:
                self._connection.terminate()
