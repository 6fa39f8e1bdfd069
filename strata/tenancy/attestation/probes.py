"""Trying the walls of one tenant's home as the application's role, without a seal, with a false one, as another tenant.

Every transaction is read-only and rolled back. What comes out is what was reached, in words; nothing reached: an empty list.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

from strata.tenancy.cell.door import CellSecret, Isolation, Refusal, entry_message
from strata.tenancy.model import Placement, Tier, tenant_schema

if TYPE_CHECKING:
    from strata.tenancy.cell.tenant_tables import TenantTable

_FORBIDDEN = "42501"
_TURNED_AWAY = frozenset({_FORBIDDEN, Refusal.NOT_ENTERED})
# As strata.seal writes it, in the setting where it stands (migrations/cell/sql/0006_seal.sql).
_FORGED = "SELECT set_config('backtrace_functions', $1, true)"


async def reached_without_entering(
    connection: asyncpg.Connection, tables: Sequence[TenantTable], tenant_id: UUID, epoch: int
) -> list[str]:
    """Also with a seal that was made up, should the server let the application set one."""
    async with _undone(connection):
        reached = await _reached(connection, tables, tenant_id, "without entering", inside=False)
    async with _undone(connection):
        schema = tables[0].schema if tables else ""
        try:
            await connection.execute(_FORGED, f"{schema} {epoch:019d} {tenant_id.hex}")
        except asyncpg.InsufficientPrivilegeError:
            return reached
        reached += await _reached(connection, tables, tenant_id, "with a forged seal", inside=False)
    return reached


async def entered_with_false_capability(
    connection: asyncpg.Connection, secret: CellSecret, tenant_id: UUID, placement: Placement
) -> list[str]:
    """The door's own key for another epoch, and a key that is not the cell's."""
    false = (
        entry_message(CellSecret(bytes(32)), tenant_id, placement, Isolation.READ_COMMITTED, read_only=True),
        entry_message(secret, tenant_id, placement, Isolation.READ_COMMITTED, read_only=True).replace(
            secret.capability(tenant_id, placement.epoch), secret.capability(tenant_id, placement.epoch + 1)
        ),
    )
    admitted = []
    for message in false:
        sqlstate = await _refusal(connection, message)
        if sqlstate not in {Refusal.CAPABILITY, Refusal.FENCED}:
            admitted.append(f"a false capability was answered with {sqlstate or 'entry'}")
    return admitted


async def reached_as(
    connection: asyncpg.Connection, message: str, tables: Sequence[TenantTable], tenant_id: UUID
) -> list[str]:
    """From inside another tenant's transaction: that tenant's own session, aimed at this one's rows in every table."""
    await connection.execute(message)
    try:
        return await _reached(connection, tables, tenant_id, "from another customer's session", inside=True)
    finally:
        await connection.execute("ROLLBACK")


async def own_tables_with_rows(
    connection: asyncpg.Connection, message: str, tables: Sequence[TenantTable], tenant_id: UUID
) -> int:
    """In how many tables the tenant itself finds rows: what shows that the probe above was well aimed."""
    await connection.execute(message)
    try:
        return sum([await connection.fetchval(_any_row(table), tenant_id) is not None for table in tables])
    finally:
        await connection.execute("ROLLBACK")


def entry_of(secret: CellSecret, cell: str, fence: asyncpg.Record) -> str:
    """The message that enters the tenant of a fence row."""
    tenant_id, schema = fence["tenant_id"], fence["schema_name"]
    # Dedicated and shared are entered alike.
    tier = Tier.SCHEMA if schema == tenant_schema(tenant_id) else Tier.SHARED
    placement = Placement(cell=cell, tier=tier, schema_name=schema, epoch=fence["epoch"])
    return entry_message(secret, tenant_id, placement, Isolation.READ_COMMITTED, read_only=True)


async def _refusal(connection: asyncpg.Connection, message: str) -> str | None:
    """The SQLSTATE with which the door turns a message away; None: it let it in."""
    try:
        await connection.execute(message)
    except asyncpg.PostgresError as error:
        return error.sqlstate
    finally:
        await connection.execute("ROLLBACK")
    return None


async def _reached(
    connection: asyncpg.Connection, tables: Sequence[TenantTable], tenant_id: UUID, how: str, *, inside: bool
) -> list[str]:
    """`inside`: a tenant has been entered, and «no rows» is an honest answer; else any answer at all is a hole."""
    found = []
    for table in tables:
        # A savepoint each: a refusal would end the transaction.
        await connection.execute("SAVEPOINT probe")
        try:
            row = await connection.fetchval(_any_row(table), tenant_id)
        except asyncpg.PostgresError as error:
            await connection.execute("ROLLBACK TO SAVEPOINT probe")
            if error.sqlstate not in _TURNED_AWAY:
                found.append(f"{table.name} answered {how} with {error.sqlstate}")
            continue
        if row is not None or not inside:
            found.append(f"{table.name} could be read {how}")
    return found


def _any_row(table: TenantTable) -> str:
    return f"SELECT 1 FROM {table.qualified} WHERE tenant_id = $1 LIMIT 1"  # noqa: S608 - names from pg_catalog, quoted


@asynccontextmanager
async def _undone(connection: asyncpg.Connection) -> AsyncIterator[None]:
    await connection.execute("BEGIN READ ONLY")
    try:
        yield
    finally:
        await connection.execute("ROLLBACK")
