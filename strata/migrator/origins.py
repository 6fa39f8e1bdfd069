"""Replication origins on a target: the name under which an applier or a copier writes.

What is written under one is passed over by streams that ask for `origin = none`; and only one session may hold one.
"""

from __future__ import annotations

import asyncio
import re

import psycopg

from strata.migrator.replication_errors import ApplierBusyError, OriginsExhaustedError
from strata.migrator.sessions import Reign, Session, held, target_session

_HOLDER = re.compile(r"PID (\d+)")


async def create_origin(dsn: str, origin: str, reign: Reign | None = None) -> None:
    """Does nothing if it is there."""
    async with target_session(dsn) as connection, held(connection, reign):
        try:
            await connection.execute(
                "SELECT pg_catalog.pg_replication_origin_create(%s)"
                " WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_origin WHERE roname = %s)",
                (origin, origin),
            )
        except psycopg.errors.ConfigurationLimitExceeded as error:
            raise OriginsExhaustedError(error) from error


async def drop_origin(dsn: str, origin: str, reign: Reign | None = None) -> None:
    """Origin and progress row, after their holder; none of the three need be there."""
    await end_applier(dsn, origin)
    async with target_session(dsn) as connection, held(connection, reign):
        await connection.execute("DELETE FROM strata.apply_progress WHERE origin = %s", (origin,))
        await connection.execute(
            "SELECT pg_catalog.pg_replication_origin_drop(roname)"
            " FROM pg_catalog.pg_replication_origin WHERE roname = %s",
            (origin,),
        )


async def end_applier(dsn: str, origin: str, timeout_s: float = 10) -> None:
    """End whoever holds the origin. For the holder of the move's lease, when a worker died or fell asleep.

    What the other had not committed is undone; it learns of its end from its next statement.
    """
    async with target_session(dsn) as connection, asyncio.timeout(timeout_s):
        while True:
            try:
                await hold_origin(connection, origin)
            except ApplierBusyError as busy:
                if busy.pid is None:
                    raise
                await connection.execute("SELECT pg_catalog.pg_terminate_backend(%s, 1000)", (busy.pid,))
            except psycopg.errors.UndefinedObject:
                return
            else:
                # Now, and not when the server has seen this session end: whoever drops the origin comes next.
                await connection.execute("SELECT pg_catalog.pg_replication_origin_session_reset()")
                return


async def hold_origin(connection: Session, origin: str) -> None:
    """From here on the session writes under this origin; ApplierBusyError if another session does."""
    try:
        await connection.execute("SELECT pg_catalog.pg_replication_origin_session_setup(%s)", (origin,))
    except psycopg.errors.ObjectInUse as error:
        holder = _HOLDER.search(str(error))
        raise ApplierBusyError(origin, int(holder[1]) if holder else None) from error
    except psycopg.errors.ConfigurationLimitExceeded as error:
        raise OriginsExhaustedError(error) from error
