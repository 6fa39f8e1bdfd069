"""The pool of each cell, made on first use."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any, Protocol

import msgspec
from sqlalchemy import URL, NullPool, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from strata.platform.errors import StrataError
from strata.platform.settings import Pooler, PoolSettings
from strata.tenancy.cell.budget import Budget
from strata.tenancy.cell.connection import TenantConnection
from strata.tenancy.cell.door import CellSecret
from strata.tenancy.cell.pool import CellPool
from strata.tenancy.cell.spending import watch
from strata.tenancy.model import CellKind

_LOOK_EVERY_S = 1.0


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
    pool: CellPool


class CellEngines:
    """The pools of a process: made on use, closed when idle, those of dedicated cells under one budget."""

    def __init__(self, cells: CellSource, settings: PoolSettings) -> None:
        self._cells = cells
        self._settings = settings
        self._open: dict[str, OpenCell] = {}
        self._opening = asyncio.Lock()
        self._budget = Budget(settings.dedicated_budget)
        self._looked_at: dict[str, float] = {}
        self._tidying: asyncio.Task[None] | None = None

    def opened(self, name: str) -> OpenCell | None:
        return self._open.get(name)

    async def open(self, name: str) -> OpenCell:
        found = self._open.get(name)
        if found is not None:
            return found
        async with self._opening:
            if name not in self._open:
                cell = await self._cells.cell(name)
                self._open[name] = self._made(cell)
            if self._tidying is None:
                self._tidying = asyncio.create_task(self._tidy(), name="idle-connections")
            return self._open[name]

    async def forget(self, name: str, seen: OpenCell | None = None) -> None:
        """Close a cell's pool; the next use reads the catalog again.

        `seen`: unless there is a newer one by now. Many find a pool out of date at once, and each closing the one before
        would open as many pools as there are requests.
        """
        found = self._open.get(name)
        if found is None or (seen is not None and found is not seen):
            return
        del self._open[name]
        await found.pool.close()

    async def has_other_address(self, name: str) -> bool:
        """For whoever does not get in: whether the catalog knows the cell by another address, or password, than the pool.

        Then the pool is closed, and the next use opens another one: a server that was failed over is found without a
        restart. The catalog is asked once in `_LOOK_EVERY_S`, however many do not get in.
        """
        seen = self._open.get(name)
        if seen is None or time.monotonic() < self._looked_at.get(name, -_LOOK_EVERY_S) + _LOOK_EVERY_S:
            return False
        self._looked_at[name] = time.monotonic()
        try:
            now = await self._cells.cell(name)
        except (StrataError, SQLAlchemyError, OSError):
            # Gone, or the catalog does not answer either: what is known stays.
            return False
        if now.url == seen.cell.url:
            return False
        await self.forget(name, seen)
        return True

    async def close(self) -> None:
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.wait([self._tidying])
            self._tidying = None
        for name in list(self._open):
            await self.forget(name)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(self._settings.idle_close_s / 4)
            now = time.monotonic()
            for name, home in list(self._open.items()):
                home.pool.close_idle(now)
                unused = now - home.pool.used_at > self._settings.idle_close_s
                if home.cell.kind is CellKind.DEDICATED and unused and not home.pool.in_use:
                    await self.forget(name)

    def _made(self, cell: Cell) -> OpenCell:
        shared = cell.kind is CellKind.SHARED
        engine = self._engine(cell)
        pool = CellPool(
            cell.name,
            engine,
            self._settings,
            size=self._settings.shared_size if shared else self._settings.dedicated_size,
            overflow=self._settings.shared_overflow if shared else self._settings.dedicated_overflow,
            budget=None if shared else self._budget,
        )
        return OpenCell(cell, engine, pool)

    def _engine(self, cell: Cell) -> AsyncEngine:
        engine = create_async_engine(
            cell.url.set(drivername="postgresql+asyncpg"),
            connect_args=self._connect_args(),
            # The connections are kept by CellPool.
            poolclass=NullPool,
            # Parameters of a tenant's statements are the tenant's; they stay out of error texts and logs.
            hide_parameters=True,
        )
        event.listen(engine.sync_engine, "connect", _seal_off)
        watch(engine.sync_engine)
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
