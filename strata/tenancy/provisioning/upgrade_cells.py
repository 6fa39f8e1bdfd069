"""Where the cells are, for their administrator; and what their ledgers say, asked of many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import asyncpg
import msgspec
from sqlalchemy import URL, select
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.platform.database.administration import administrator
from strata.platform.errors import StrataError
from strata.tenancy.catalog.tables import CellRow, ServerRow
from strata.tenancy.model import CellState

if TYPE_CHECKING:
    from strata.tenancy.catalog.registry import Registry

T = TypeVar("T")


class CellAddress(msgspec.Struct, frozen=True):
    name: str
    server: str
    url: URL


async def built_cells(catalog: AsyncEngine, registry: Registry) -> list[CellAddress]:
    """Every cell that has been built, with the administrator's address."""
    async with catalog.connect() as connection:
        rows = (
            await connection.execute(
                select(CellRow.name, CellRow.database, CellRow.server_id)
                .where(CellRow.state != CellState.BUILDING)
                .order_by(CellRow.name)
            )
        ).all()
    # Once a server: a key port may ask a vault on the network each time.
    servers = await _servers(catalog, registry, {row.server_id for row in rows})
    return [
        CellAddress(row.name, name, url.set(database=row.database))
        for row in rows
        for name, url in [servers[row.server_id]]
    ]


async def _servers(catalog: AsyncEngine, registry: Registry, ids: Iterable[object]) -> dict[object, tuple[str, URL]]:
    found: dict[object, tuple[str, URL]] = {}
    async with catalog.connect() as connection:
        for row in await connection.execute(select(ServerRow.__table__).where(ServerRow.id.in_(list(ids)))):
            found[row.id] = (row.name, await registry.admin_url(row))  # type: ignore[arg-type]
    return found


async def ask_each(
    cells: Iterable[CellAddress], ask: Callable[[asyncpg.Connection], Awaitable[T]], jobs: int
) -> list[tuple[CellAddress, T | str]]:
    """Each cell's answer, at most `jobs` connections at once; what stands in its way, where a cell does not answer."""
    turns = asyncio.Semaphore(jobs)

    async def one(cell: CellAddress) -> tuple[CellAddress, T | str]:
        try:
            async with turns, administrator(cell.url) as admin:
                return cell, await ask(admin)
        except StrataError as error:
            return cell, error.detail
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            return cell, str(error)

    return list(await asyncio.gather(*(one(cell) for cell in cells)))
