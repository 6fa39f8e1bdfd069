"""The catalog's register of standbys, and what a pool needs to reach a cell on one of them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from sqlalchemy import URL, delete, select
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from strata.platform.database import addresses
from strata.platform.errors import NotFoundError
from strata.platform.ids import new_id
from strata.tenancy.catalog.audit import record
from strata.tenancy.catalog.registry import Registry, UnknownCellError
from strata.tenancy.catalog.tables import CellRow, ReplicaRow, ServerRow

if TYPE_CHECKING:
    from strata.platform.keys.port import KeyPort
    from strata.tenancy.cell.engines import Cell

_AT = "@"


class ReplicaSummary(msgspec.Struct, frozen=True):
    name: str
    server: str
    address: str
    added_at: datetime


class Registration(msgspec.Struct, frozen=True):
    """A standby's name and the id under which it is leased; another address has another id."""

    id: UUID
    name: str
    url: URL
    """Its administrator's."""


class UnknownReplicaError(NotFoundError):
    code = "unknown-replica"
    title = "No such replica"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no replica «{name}»; strata server replica list shows those there are.")


def pool_name(cell: str, standby: UUID) -> str:
    """The name under which a cell's pool on a standby is opened."""
    return f"{cell}{_AT}{standby.hex}"


class ReplicaRegister:
    """Reads and writes the rows of replicas; what it is told of a standby has been checked by provisioning."""

    def __init__(self, catalog: AsyncEngine, registry: Registry, keys: KeyPort) -> None:
        self._sessions = async_sessionmaker(catalog, expire_on_commit=False)
        self._registry = registry
        self._keys = keys

    async def add(self, server: str, name: str, url: URL, actor: str) -> UUID:
        """Register a standby. Again with the same address it keeps its id; with another one it gets a new one."""
        async with self._sessions.begin() as session:
            host = await Registry.server_row(session, server)
            row = await session.scalar(select(ReplicaRow).where(ReplicaRow.name == name).with_for_update())
            if row is not None:
                held = await self._url(row)
                if row.server_id == host.id and (held.host, held.port) == (url.host, url.port):
                    row.dsn_sealed = await self._seal(row.id, url)
                    return row.id
                await session.delete(row)
                await session.flush()
            row = ReplicaRow(id=new_id(), server_id=host.id, name=name)
            row.dsn_sealed = await self._seal(row.id, url)
            session.add(row)
            record(session, actor, "replica.add", name, detail={"server": server})
        return row.id

    async def remove(self, server: str, name: str, actor: str) -> None:
        async with self._sessions.begin() as session:
            host = await Registry.server_row(session, server)
            removed = await session.scalar(
                delete(ReplicaRow)
                .where(ReplicaRow.name == name, ReplicaRow.server_id == host.id)
                .returning(ReplicaRow.id)
            )
            if removed is None:
                raise UnknownReplicaError(name)
            record(session, actor, "replica.remove", name, detail={"server": server})

    async def all(self, server: str | None = None) -> list[ReplicaSummary]:
        query = select(ReplicaRow, ServerRow.name).join(ServerRow, ServerRow.id == ReplicaRow.server_id)
        if server is not None:
            query = query.where(ServerRow.name == server)
        async with self._sessions() as session:
            if server is not None:
                await Registry.server_row(session, server)
            rows = (await session.execute(query.order_by(ServerRow.name, ReplicaRow.name))).all()
        found = []
        for row, host in rows:
            url = await self._url(row)
            found.append(ReplicaSummary(row.name, host, f"{url.host}:{url.port or 5432}", row.created_at))
        return found

    async def any_at_all(self) -> bool:
        async with self._sessions() as session:
            return await session.scalar(select(ReplicaRow.id).limit(1)) is not None

    async def of_cell(self, cell: str) -> list[Registration]:
        """The standbys that have a copy of the cell."""
        async with self._sessions() as session:
            rows = await session.execute(
                select(ReplicaRow, CellRow.database)
                .join(CellRow, CellRow.server_id == ReplicaRow.server_id)
                .where(CellRow.name == cell)
                .order_by(ReplicaRow.name)
            )
            found = rows.all()
        return [Registration(row.id, row.name, (await self._url(row)).set(database=base)) for row, base in found]

    async def of_server(self, server: str) -> list[Registration]:
        async with self._sessions() as session:
            host = await Registry.server_row(session, server)
            query = select(ReplicaRow).where(ReplicaRow.server_id == host.id).order_by(ReplicaRow.name)
            rows = (await session.scalars(query)).all()
        return [Registration(row.id, row.name, await self._url(row)) for row in rows]

    async def cell(self, name: str) -> Cell:
        """For `CellEngines`: a cell, or under `pool_name` the copy of it on a standby, as the application reaches it.

        Roles and passwords are the primary's, which the standby has by replaying them.
        """
        of, at, standby = name.partition(_AT)
        primary = await self._registry.cell(of)
        if not at:
            return primary
        async with self._sessions() as session:
            row = await session.get(ReplicaRow, UUID(hex=standby))
        if row is None:
            raise UnknownCellError(name)
        there = await self._url(row)
        return msgspec.structs.replace(primary, name=name, url=primary.url.set(host=there.host, port=there.port))

    async def _seal(self, standby: UUID, url: URL) -> str:
        return await self._keys.seal(addresses.libpq(url).encode(), f"replica/{standby}/dsn")

    async def _url(self, row: ReplicaRow) -> URL:
        return addresses.parse((await self._keys.unseal(row.dsn_sealed, f"replica/{row.id}/dsn")).decode())
