"""The register of servers and cells; secrets leave it unsealed only towards this process's own pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from sqlalchemy import URL, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from strata.platform.database import addresses
from strata.platform.errors import NotFoundError
from strata.tenancy.catalog import purposes
from strata.tenancy.catalog.audit import record
from strata.tenancy.catalog.tables import CellRow, PlacementRow, ServerRow
from strata.tenancy.cell.door import CellSecret
from strata.tenancy.cell.engines import Cell
from strata.tenancy.model import CellKind, CellState

if TYPE_CHECKING:
    from strata.platform.keys.port import KeyPort


class ServerSummary(msgspec.Struct, frozen=True):
    name: str
    region: str
    address: str
    draining: bool
    cells: int
    capacity: int | None = None
    """The most dedicated databases it takes."""
    plans: tuple[str, ...] | None = None


class CellSummary(msgspec.Struct, frozen=True):
    name: str
    server: str
    region: str
    kind: CellKind
    state: CellState
    database: str
    capacity: int
    tenants: int
    plans: tuple[str, ...] | None = None


class UnknownServerError(NotFoundError):
    code = "unknown-server"
    title = "No such server"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no server «{name}»; strata server list shows those there are.")


class UnknownCellError(NotFoundError):
    code = "unknown-cell"
    title = "No such cell"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no cell «{name}»; strata cell list shows those there are.")


class Registry:
    """Reads and writes the rows of servers and cells. It makes nothing in PostgreSQL: provisioning does."""

    def __init__(self, catalog: AsyncEngine, keys: KeyPort) -> None:
        self._sessions = async_sessionmaker(catalog, expire_on_commit=False)
        self._keys = keys

    async def cell(self, name: str) -> Cell:
        """What a pool needs to reach a cell as the application."""
        async with self._sessions() as session:
            rows = await session.execute(
                select(CellRow, ServerRow)
                .join(ServerRow, ServerRow.id == CellRow.server_id)
                .where(CellRow.name == name)
            )
            found = rows.one_or_none()
        if found is None:
            raise UnknownCellError(name)
        cell, server = found
        admin = await self.admin_url(server)
        password = await self._keys.unseal(server.app_password_sealed, purposes.app_password(server.name))
        host, port = admin.host, admin.port
        if server.app_address is not None:
            host, _, digits = server.app_address.rpartition(":")
            port = int(digits)
        return Cell(
            name=cell.name,
            kind=CellKind(cell.kind),
            url=addresses.for_asyncpg(admin).set(
                host=host, port=port, username=server.app_role, password=password.decode(), database=cell.database
            ),
            secret=await self.cell_secret(cell),
        )

    async def cell_secret(self, cell: CellRow) -> CellSecret:
        return CellSecret(await self._keys.unseal(cell.secret_sealed, purposes.cell_secret(cell.name)))

    async def seal_cell_secret(self, name: str, secret: bytes) -> str:
        return await self._keys.seal(secret, purposes.cell_secret(name))

    async def admin_url(self, server: ServerRow, database: str | None = None) -> URL:
        """The administrator's address of a server, or of one database there."""
        dsn = await self._keys.unseal(server.admin_dsn_sealed, purposes.admin_dsn(server.name))
        url = addresses.parse(dsn.decode())
        return url.set(database=database) if database else url

    async def whole_cells_on(self, server: str) -> Sequence[CellRow]:
        """By name; none of a server that nobody knows."""
        query = (
            select(CellRow)
            .join(ServerRow, ServerRow.id == CellRow.server_id)
            .where(ServerRow.name == server, CellRow.state != CellState.BUILDING)
        )
        async with self._sessions() as session:
            return (await session.scalars(query.order_by(CellRow.name))).all()

    async def admin_url_of_server(self, name: str) -> URL:
        async with self._sessions() as session:
            server = await self.server_row(session, name)
        return await self.admin_url(server)

    async def admin_url_of_cell(self, name: str) -> URL:
        async with self._sessions() as session:
            cell = await self.cell_row(session, name)
            server = await session.get_one(ServerRow, cell.server_id)
        return await self.admin_url(server, cell.database)

    @staticmethod
    async def cell_row(session: AsyncSession, name: str) -> CellRow:
        row = await session.scalar(select(CellRow).where(CellRow.name == name))
        if row is None:
            raise UnknownCellError(name)
        return row

    @staticmethod
    async def server_row(session: AsyncSession, name: str) -> ServerRow:
        row = await session.scalar(select(ServerRow).where(ServerRow.name == name))
        if row is None:
            raise UnknownServerError(name)
        return row

    async def add_server(
        self,
        name: str,
        url: URL,
        region: str,
        app_role: str,
        app_password: str,
        app_address: str | None,
        actor: str,
        *,
        capacity: int | None = None,
        plans: Sequence[str] | None = None,
    ) -> None:
        """Record a server that provisioning has prepared; one of that name already there gets the new address.

        `capacity` and `plans` are set when given, and else left as they are.
        """
        async with self._sessions.begin() as session:
            row = await session.scalar(select(ServerRow).where(ServerRow.name == name).with_for_update())
            if row is None:
                row = ServerRow(name=name)
                session.add(row)
            row.region, row.app_role, row.app_address = region, app_role, app_address
            row.capacity = row.capacity if capacity is None else capacity
            row.plans = row.plans if plans is None else list(plans)
            row.admin_dsn_sealed = await self._keys.seal(addresses.libpq(url).encode(), purposes.admin_dsn(name))
            row.app_password_sealed = await self._keys.seal(app_password.encode(), purposes.app_password(name))
            record(session, actor, "server.add", name, detail={"region": region})

    async def servers(self) -> list[ServerSummary]:
        cells = select(func.count()).where(CellRow.server_id == ServerRow.id).scalar_subquery()
        async with self._sessions() as session:
            rows = (await session.execute(select(ServerRow, cells).order_by(ServerRow.name))).all()
        summaries = []
        for row, count in rows:
            url = await self.admin_url(row)
            summaries.append(
                ServerSummary(
                    row.name,
                    row.region,
                    f"{url.host}:{url.port or 5432}",
                    row.draining,
                    count,
                    row.capacity,
                    None if row.plans is None else tuple(row.plans),
                )
            )
        return summaries

    async def cells(self) -> list[CellSummary]:
        tenants = select(func.count()).where(PlacementRow.cell_id == CellRow.id).scalar_subquery()
        async with self._sessions() as session:
            rows = await session.execute(
                select(CellRow, ServerRow.name, tenants)
                .join(ServerRow, ServerRow.id == CellRow.server_id)
                .order_by(CellRow.name)
            )
            return [
                CellSummary(
                    cell.name,
                    server,
                    cell.region,
                    CellKind(cell.kind),
                    CellState(cell.state),
                    cell.database,
                    cell.capacity,
                    count,
                    None if cell.plans is None else tuple(cell.plans),
                )
                for cell, server, count in rows
            ]


def dedicated_cell_name(tenant_id: UUID) -> str:
    return f"dedicated-{tenant_id.hex}"
