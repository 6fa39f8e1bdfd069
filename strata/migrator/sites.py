"""The two ends of a move: where they are, how the administrator gets in, and in whose name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from sqlalchemy import URL, select
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from strata.migrator.copy_sessions import Warrant
from strata.migrator.errors import FailedOverError
from strata.migrator.fence import APPROVED
from strata.migrator.moves import Move, Place
from strata.migrator.sessions import Reign
from strata.migrator.tables import Home
from strata.platform.database.addresses import libpq
from strata.platform.database.administration import administrator
from strata.platform.database.connecting import DatabaseMissingError
from strata.tenancy.catalog.registry import UnknownCellError
from strata.tenancy.catalog.tables import CellRow, PlacementRow, ServerRow
from strata.tenancy.provisioning.homes import Site

if TYPE_CHECKING:
    import asyncpg

    from strata.tenancy.catalog.registry import Registry

_HOLD = f"SELECT ({APPROVED}), strata.hold_attempt($1, $2)"
_OLDER_BACK_ENDS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE starts_with(application_name, $1) AND application_name <> $2 AND pid <> pg_backend_pid()
"""
_STAMP = """
INSERT INTO strata.move_attempt AS m (tenant_id, attempt) VALUES ($1, $2)
ON CONFLICT (tenant_id) DO UPDATE SET attempt = excluded.attempt WHERE m.attempt <= excluded.attempt RETURNING true
"""


class End(msgspec.Struct, frozen=True):
    """One end of a move, seen by the attempt that works on it."""

    place: Place
    site: Site
    home: Home
    attempt: int
    """The one that the cell is stamped with; every writing transaction holds it."""

    @property
    def dsn(self) -> str:
        return libpq(self.home.url)

    @property
    def reign(self) -> Reign:
        return Reign(self.home.tenant_id, self.attempt)

    @property
    def warrant(self) -> Warrant:
        return Warrant(application_name(self.home.tenant_id, self.attempt), self.hold)

    async def hold(self, connection: asyncpg.Connection) -> None:
        """First in a writing transaction: ends it with SM007 when the attempt is over. FailedOverError: not approved."""
        if not await connection.fetchval(_HOLD, self.home.tenant_id, self.attempt):
            raise FailedOverError(self.place.cell)

    async def require_approved(self) -> None:
        """FailedOverError when the server runs on a timeline that the cell does not know."""
        async with self.admin() as connection:
            if not await connection.fetchval(APPROVED):
                raise FailedOverError(self.place.cell)

    async def is_there(self) -> bool:
        """False: the server answers and does not have the cell's database, as one promoted that had not heard of it."""
        try:
            async with self.admin():
                return True
        except DatabaseMissingError:
            return False

    @asynccontextmanager
    async def admin(self, *, remembering: bool = False) -> AsyncIterator[asyncpg.Connection]:
        async with administrator(self.home.url, remembering=remembering) as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[asyncpg.Connection]:
        """A transaction that no later attempt overtakes."""
        async with self.admin() as connection, connection.transaction():
            await self.hold(connection)
            yield connection

    @asynccontextmanager
    async def shutting(self) -> AsyncIterator[asyncpg.Connection]:
        """As `writing`, on a server that nobody has approved too: for acts that only ever keep people out, or let nobody in there.

        A promoted standby may not have heard that the tenant has left; it must have before it is approved.
        """
        async with self.admin() as connection, connection.transaction():
            await connection.execute("SELECT strata.hold_attempt($1, $2)", self.home.tenant_id, self.attempt)
            yield connection

    async def stamp(self) -> bool:
        """Put this attempt in the place of those before and end what they have running; False: a later one was here."""
        async with self.admin() as connection:
            name = application_name(self.home.tenant_id, self.attempt)
            await connection.execute(_OLDER_BACK_ENDS, name.rpartition("-")[0] + "-", name)
            if not await connection.fetchval(_STAMP, self.home.tenant_id, self.attempt):
                return False
            # One that had connected before the stamp and asked for nothing yet.
            await connection.execute(_OLDER_BACK_ENDS, name.rpartition("-")[0] + "-", name)
        return True


def application_name(tenant_id: UUID, attempt: int) -> str:
    return f"strata-move-{tenant_id.hex}-{attempt}"


class Sites:
    def __init__(self, catalog: AsyncEngine, registry: Registry) -> None:
        self._sessions = async_sessionmaker(catalog, expire_on_commit=False)
        self._registry = registry

    async def source(self, move: Move) -> End:
        return await self._end(move, move.source)

    async def target(self, move: Move) -> End:
        return await self._end(move, move.target)

    async def _end(self, move: Move, place: Place) -> End:
        async with self._sessions() as session:
            found = (
                await session.execute(
                    select(CellRow, ServerRow)
                    .join(ServerRow, ServerRow.id == CellRow.server_id)
                    .where(CellRow.name == place.cell)
                )
            ).one_or_none()
        if found is None:
            raise UnknownCellError(place.cell)
        cell, server = found
        url = _in_the_name_of(await self._registry.admin_url(server, cell.database), move)
        site = Site(
            move.tenant_id,
            PlacementRow(tenant_id=move.tenant_id, cell_id=cell.id, tier=place.tier, schema_name=place.schema_name),
            cell,
            server,
            await self._registry.admin_url(server),
            url,
        )
        home = Home(move.tenant_id, place.cell, place.tier, place.schema_name, url)
        return End(place, site, home, move.attempt)


def _in_the_name_of(url: URL, move: Move) -> URL:
    """Every connection says whose it is, so that whoever takes the move over can end those of before."""
    return url.update_query_dict({"application_name": application_name(move.tenant_id, move.attempt)})
