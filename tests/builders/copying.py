"""Two databases of a test's own with the same tables, a tenant and a neighbour: what the copier moves between."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from uuid import UUID

import asyncpg
import msgspec

from strata.migrator.copier import Copied, Copier, Progress
from strata.migrator.copy_sessions import Rest, Throttle, Warrant, restless
from strata.migrator.indexes import build
from strata.migrator.tables import Home, TenantTables, describe
from strata.migrator.target import Target
from strata.platform.database.addresses import parse
from strata.platform.database.administration import administrator
from strata.platform.database.names import literal, quoted
from strata.tenancy.model import Tier, schema_for
from tests.servers import PostgresServer

TENANT = UUID("0192a000-0000-7000-8000-00000000000a")
NEIGHBOUR = UUID("0192a000-0000-7000-8000-00000000000b")

GOODS = """
CREATE TABLE goods (
    tenant_id uuid NOT NULL, id bigint NOT NULL, sku text NOT NULL, quantity bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, id), CONSTRAINT uq_goods UNIQUE (tenant_id, sku));
CREATE INDEX ix_goods_quantity ON goods (tenant_id, quantity) WHERE quantity > 0;
"""


class Homes(msgspec.Struct, frozen=True):
    source: Home
    target: Home
    at_source: asyncpg.Connection
    at_target: asyncpg.Connection

    async def tables(self) -> TenantTables:
        return await describe(self.at_source, self.source.schema_name)

    @asynccontextmanager
    async def snapshot(self, home: Home | None = None) -> AsyncIterator[str]:
        """Of the source unless told otherwise, exported by a session of its own for as long as the block lasts."""
        async with administrator((home or self.source).url) as holder, holder.transaction(isolation="repeatable_read"):
            yield await holder.fetchval("SELECT pg_export_snapshot()")

    async def copy(
        self,
        *,
        warrant: Warrant | None = None,
        throttle: Throttle | None = None,
        rest: Rest = restless,
        progress: Callable[[Progress], None] | None = None,
        workers: int = 2,
        source: Home | None = None,
    ) -> Copied:
        """Strip, copy, build: what a move does, without the stream."""
        async with self.snapshot() as snapshot, self.origins(workers) as origins:
            tables = await self.tables()
            if self.target.exclusive:
                await Target(self.target).strip()
            copied = await Copier(
                source or self.source,
                self.target,
                tables,
                snapshot=snapshot,
                origins=origins,
                warrant=warrant,
                throttle=throttle,
                rest=rest,
            ).run(progress)
            await build(self.target, tables)
        return copied

    @asynccontextmanager
    async def origins(self, workers: int) -> AsyncIterator[Sequence[str]]:
        """Names of origins that are dropped at the end: they belong to the whole cluster."""
        names = [f"copy_{secrets.token_hex(4)}_{number}" for number in range(workers)]
        try:
            yield names
        finally:
            for name in names:
                await drop_origin(self.at_target, name)

    async def rows(self, side: Home, table: str, tenant: UUID = TENANT) -> list[tuple[str | None, ...]]:
        """The tenant's rows as text, by the columns' names: another way to look than the verifier's."""
        connection = self.at_source if side is self.source else self.at_target
        described = (await describe(connection, side.schema_name)).by_name[table]
        columns = ", ".join(f"t.{quoted(column.name)}::text" for column in described.columns)
        found = await connection.fetch(f"SELECT {columns} FROM {described.qualified} t WHERE tenant_id = $1", tenant)
        return sorted((tuple(row) for row in found), key=repr)


async def drop_origin(connection: asyncpg.Connection, name: str) -> None:
    for _ in range(100):
        try:
            await connection.execute(
                "SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin WHERE roname = $1", name
            )
        except asyncpg.ObjectInUseError:
            await asyncio.sleep(0.05)  # its session is just ending
        else:
            return


@asynccontextmanager
async def homes(
    first: PostgresServer,
    second: PostgresServer,
    ddl: str = GOODS,
    *,
    target_tier: Tier = Tier.DEDICATED,
    target_ddl: str | None = None,
) -> AsyncIterator[Homes]:
    """A shared home on `first` and one of `target_tier` on `second`, both with the tables of `ddl`."""
    async with AsyncExitStack() as stack:
        sides = []
        for server, tier, statements in (
            (first, Tier.SHARED, ddl),
            (second, target_tier, ddl if target_ddl is None else target_ddl),
        ):
            name = await stack.enter_async_context(_database(server))
            home = Home(TENANT, name, tier, schema_for(tier, TENANT), parse(server.dsn(name)))
            connection = await stack.enter_async_context(administrator(home.url))
            await connection.execute(f"CREATE SCHEMA {quoted(home.schema_name)}")
            await connection.execute(f"SET search_path = {quoted(home.schema_name)}")
            await connection.execute(statements)
            sides.append((home, connection))
        yield Homes(sides[0][0], sides[1][0], sides[0][1], sides[1][1])


@asynccontextmanager
async def _database(server: PostgresServer) -> AsyncIterator[str]:
    name = f"copy_{secrets.token_hex(5)}"
    async with administrator(parse(server.admin_dsn)) as admin:
        await admin.execute(f"CREATE DATABASE {quoted(name)} TEMPLATE template0 ENCODING 'UTF8'")
        try:
            yield name
        finally:
            await admin.execute(f"DROP DATABASE {quoted(name)} WITH (FORCE)")


async def fill_goods(
    connection: asyncpg.Connection, rows: int, *, tenants: Sequence[UUID] = (TENANT, NEIGHBOUR)
) -> None:
    """So many rows for each tenant, one after the other in turn; ids from 1."""
    listed = ", ".join(f"({literal(str(tenant))}::uuid)" for tenant in tenants)
    await connection.execute(
        "INSERT INTO goods (tenant_id, id, sku, quantity) SELECT t, i, 'sku-' || i, i % 50"
        f" FROM generate_series(1, {rows}) i, (VALUES {listed}) v (t) ORDER BY i; ANALYZE goods"
    )


class Wire:
    """A way to a server that can be cut, go silent, or pause once, after so many bytes of what the server says."""

    def __init__(
        self,
        home: Home,
        *,
        cut_after: int | None = None,
        silent_after: int | None = None,
        pause_after: int | None = None,
        pause_s: float = 0.0,
    ) -> None:
        self._home = home
        self._pause_after = pause_after
        self._pause_s = pause_s
        self._cut_after = cut_after
        self._silent_after = silent_after
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def home(self) -> AsyncIterator[Home]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield msgspec.structs.replace(self._home, url=self._home.url.set(host="127.0.0.1", port=port))
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        url = self._home.url
        there_reader, there_writer = await asyncio.open_connection(url.host, url.port)
        for source, sink, limited in ((reader, there_writer, False), (there_reader, writer, True)):
            task = asyncio.create_task(self._pump(source, sink, limited=limited))
            self._tasks.add(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, limited: bool) -> None:
        passed = 0
        try:
            with suppress(ConnectionError):
                while chunk := await source.read(65536):
                    passed += len(chunk)
                    if limited and self._silent_after is not None and passed > self._silent_after:
                        await asyncio.Event().wait()
                    if limited and self._cut_after is not None and passed > self._cut_after:
                        return
                    if limited and self._pause_after is not None and passed > self._pause_after:
                        self._pause_after = None
                        await asyncio.sleep(self._pause_s)
                    sink.write(chunk)
                    await sink.drain()
        finally:
            sink.close()
