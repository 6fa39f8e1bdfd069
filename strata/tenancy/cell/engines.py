"""One pool of connections per cell, made on first use."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Protocol

import msgspec
from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from strata.platform.settings import Pooler, PoolSettings
from strata.tenancy.cell.connection import TenantConnection
from strata.tenancy.cell.door import CellSecret
from strata.tenancy.model import CellKind


class Cell(msgspec.Struct, frozen=True):
    """What this process needs to reach a cell. Holds a password, which neither repr nor str of a URL shows."""

    name: str
    kind: CellKind
    url: URL
    secret: CellSecret


class CellSource(Protocol):
    async def cell(self, name: str) -> Cell: ...


class OpenCell(msgspec.Struct, frozen=True):
    cell: Cell
    engine: AsyncEngine


class CellEngines:
    def __init__(self, cells: CellSource, settings: PoolSettings) -> None:
        self._cells = cells
        self._settings = settings
        self._open: dict[str, OpenCell] = {}
        self._opening = asyncio.Lock()

    async def open(self, name: str) -> OpenCell:
        found = self._open.get(name)
        if found is not None:
            return found
        async with self._opening:
            if name not in self._open:
                cell = await self._cells.cell(name)
                self._open[name] = OpenCell(cell, self._engine(cell))
            return self._open[name]

    async def forget(self, name: str) -> None:
        """Close a cell's pool; the next use reads the catalog again."""
        found = self._open.pop(name, None)
        if found is not None:
            await found.engine.dispose()

    async def close(self) -> None:
        for name in list(self._open):
            await self.forget(name)

    def _engine(self, cell: Cell) -> AsyncEngine:
        shared = cell.kind is CellKind.SHARED
        engine = create_async_engine(
            cell.url.set(drivername="postgresql+asyncpg"),
            connect_args=self._connect_args(),
            pool_size=self._settings.shared_size if shared else self._settings.dedicated_size,
            max_overflow=self._settings.shared_overflow if shared else self._settings.dedicated_overflow,
            pool_timeout=self._settings.acquire_timeout_s,
            pool_recycle=self._settings.recycle_after_s,
            # A stack: idle connections grow old and are recycled, busy ones keep their plans warm.
            pool_use_lifo=True,
            # Parameters of a tenant's statements are the tenant's; they stay out of error texts and logs.
            hide_parameters=True,
        )
        event.listen(engine.sync_engine, "connect", _seal_off)
        event.listen(engine.sync_engine, "checkin", _refuse_open_transaction)
        return engine

    def _connect_args(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "connection_class": TenantConnection,
            "timeout": self._settings.acquire_timeout_s,
            # SQL of one tenant must not be able to name, and so replace, a statement that the next will execute on this
            # connection: DEALLOCATE x; PREPARE x AS DELETE … would run as the neighbour.
            "prepared_statement_name_func": _unguessable_name,
        }
        if self._settings.pooler is Pooler.TRANSACTION:
            # A prepared statement belongs to a server connection, and the pooler gives each transaction another one:
            # unnamed statements leave nothing behind, and work with PgBouncer older than 1.21 too.
            arguments |= {
                "statement_cache_size": 0,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": str,
            }
        return arguments


def _unguessable_name() -> str:
    return f"s{secrets.token_hex(16)}"


def _seal_off(dbapi_connection: Any, _record: object) -> None:  # noqa: ANN401 - SQLAlchemy's adapter has no public type
    dbapi_connection.driver_connection.seal_off()


def _refuse_open_transaction(dbapi_connection: Any, record: Any) -> None:  # noqa: ANN401
    """The last guard: a connection with a transaction still open never reaches the next tenant."""
    if dbapi_connection is not None and dbapi_connection.driver_connection.is_in_transaction():
        record.invalidate()
