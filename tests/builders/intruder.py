"""Somebody who can have any SQL run inside tenant A's transaction, and wants what is tenant B's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import msgspec
from sqlalchemy import text

from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.session import TenantReadSession

if TYPE_CHECKING:
    from strata.tenancy.cell.connection import TenantConnection

FORBIDDEN = "42501"
NOT_ENTERED = "SM005"


class Outcome(msgspec.Struct, frozen=True):
    sqlstate: str | None = None
    message: str = ""
    rows: tuple[tuple[Any, ...], ...] = ()

    @property
    def value(self) -> Any:  # noqa: ANN401 - whatever the statement yields
        return self.rows[0][0] if self.rows else None


async def driver_of(session: TenantReadSession) -> TenantConnection:
    """asyncpg's connection beneath the session: simple protocol, COPY, whatever there is."""
    # SQLAlchemy commits what it knows of, and of statements past it it knows nothing.
    await session.execute(text("SELECT"))
    connection = await session.connection()
    driver: TenantConnection | None = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    return driver


@asynccontextmanager
async def inside(runtime: Runtime, context: TenantContext) -> AsyncIterator[TenantConnection]:
    """The raw connection of a transaction that has entered the tenant; what is done there is committed at the end."""
    async with runtime.tenants.transaction(context) as session:
        yield await driver_of(session)


async def attempt(connection: asyncpg.Connection, *statements: str) -> Outcome:
    """Run the statements in a savepoint that is always rolled back; the last one's rows, or the error."""
    await connection.execute("SAVEPOINT attempt")
    try:
        rows: list[asyncpg.Record] = []
        for statement in statements:
            rows = await connection.fetch(statement)
        return Outcome(rows=tuple(tuple(row) for row in rows))
    except asyncpg.PostgresError as error:
        return Outcome(sqlstate=error.sqlstate, message=str(error))
    finally:
        await connection.execute("ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt")


@asynccontextmanager
async def app_login(runtime: Runtime, cell: str) -> AsyncIterator[asyncpg.Connection]:
    """The application's own role at a cell, with nothing entered and none of Strata's code in between."""
    url = (await runtime.registry.cell(cell)).url
    connection = await asyncpg.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, database=url.database
    )
    try:
        yield connection
    finally:
        connection.terminate()


def named(tenant_id: UUID) -> str:
    return f"'{tenant_id}'::uuid"
