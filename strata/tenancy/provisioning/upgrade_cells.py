"""Where the cells are, for their administrator; and what their ledgers say, asked of many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import asyncpg
import msgspec

from strata.platform.database.connecting import connection
from strata.platform.database.failures import NO_ANSWER
from strata.platform.errors import StrataError
from strata.tenancy.catalog.purposes import admin_dsn
from strata.tenancy.cell.schema_revisions import CONTROL_SCHEMA, LedgerLine
from strata.tenancy.model import CellState

if TYPE_CHECKING:
    from strata.platform.keys.port import KeyPort

T = TypeVar("T")


class CellAddress(msgspec.Struct, frozen=True):
    name: str
    server: str
    dsn: str
    """The administrator's, of the server."""
    database: str


class Lag(msgspec.Struct, frozen=True):
    """A schema that is behind."""

    cell: CellAddress
    line: LedgerLine
    canary: bool = False

    @property
    def is_control(self) -> bool:
        return self.line.schema == CONTROL_SCHEMA


async def built_cells(catalog: asyncpg.Connection, keys: KeyPort) -> list[CellAddress]:
    """Every cell that has been built, with the administrator's address."""
    rows = await catalog.fetch(
        "SELECT c.name, c.database, s.name AS server, s.admin_dsn_sealed FROM cell c JOIN server s ON s.id = c.server_id"
        " WHERE c.state <> $1 ORDER BY c.name",
        CellState.BUILDING.value,
    )
    # Once a server: a key port may ask a vault on the network each time.
    sealed = {row["server"]: row["admin_dsn_sealed"] for row in rows}
    dsns = {server: (await keys.unseal(dsn, admin_dsn(server))).decode() for server, dsn in sealed.items()}
    return [CellAddress(row["name"], row["server"], dsns[row["server"]], row["database"]) for row in rows]


async def ask_each(
    cells: Iterable[CellAddress], ask: Callable[[asyncpg.Connection], Awaitable[T]], jobs: int
) -> list[tuple[CellAddress, T | str]]:
    """Each cell's answer, at most `jobs` connections at once; what stands in its way, where a cell does not answer."""
    turns = asyncio.Semaphore(jobs)

    async def one(cell: CellAddress) -> tuple[CellAddress, T | str]:
        try:
            async with turns, connection(cell.dsn, cell.database) as admin:
                return cell, await ask(admin)
        except StrataError as error:
            return cell, error.detail
        except NO_ANSWER as error:
            return cell, str(error)

    return list(await asyncio.gather(*(one(cell) for cell in cells)))
