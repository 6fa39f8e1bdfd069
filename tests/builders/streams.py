"""Two homes with the same tables, a slot between them, and a replay: for tests of the stream and the applier alone."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import msgspec

from strata.migrator.apply_tables import Route
from strata.migrator.origins import create_origin, drop_origin
from strata.migrator.progress import start_progress
from strata.migrator.replay import Replay, ReplayOptions, Source, Target, replaying
from strata.migrator.slots import SlotPin, drop_slot, exported_slot
from strata.platform.database.names import literal, quoted
from tests.servers import PostgresServer

_REVISION = Path(__file__).parents[2] / "strata" / "migrations" / "cell" / "sql" / "0004_moves.sql"
PROGRESS_TABLE_SQL = re.findall(r"CREATE TABLE strata\.apply_progress.*?;", _REVISION.read_text(), re.DOTALL)[0]
"""Alone, for databases that are no cells."""

OLD, NEW = "old home", "t_new"
PATIENCE_S = 20


class Crossing(msgspec.Struct):
    """A source schema full of everybody's rows, an empty target schema, and what moves one tenant's from here to there."""

    source: asyncpg.Connection
    target: asyncpg.Connection
    source_dsn: str
    target_dsn: str
    name: str
    tenant: UUID
    tables: tuple[str, ...]
    pin: SlotPin
    attempt: int = 1

    @property
    def route(self) -> Route:
        return Route(OLD, NEW, self.tenant)

    def ends(self) -> tuple[Source, Target]:
        return Source(self.source_dsn, self.pin, self.name), Target(self.target_dsn, self.name, self.attempt)

    @asynccontextmanager
    async def replay(self, options: ReplayOptions | None = None) -> AsyncIterator[Replay]:
        async with replaying(*self.ends(), self.route, options) as replay:
            yield replay

    async def settle(self, replay: Replay, within_s: float = PATIENCE_S) -> None:
        """Everything committed so far is on the target."""
        async with asyncio.timeout(within_s):
            await replay.caught_up(0)

    async def catch_up(self, options: ReplayOptions | None = None) -> None:
        async with self.replay(options) as replay:
            await self.settle(replay)

    async def rows(self, side: asyncpg.Connection, schema: str, table: str) -> list[str]:
        found = await side.fetch(
            f"SELECT t::text AS row FROM {quoted(schema)}.{quoted(table)} t WHERE tenant_id = $1 ORDER BY 1",
            self.tenant,
        )
        return [row["row"] for row in found]

    async def assert_equal(self) -> None:
        for table in self.tables:
            assert await self.rows(self.target, NEW, table) == await self.rows(self.source, OLD, table), table

    async def publish(self) -> None:
        listed = ", ".join(
            f"{quoted(OLD)}.{quoted(table)} WHERE (tenant_id = {literal(str(self.tenant))}::uuid)"
            for table in self.tables
        )
        await self.source.execute(
            f"CREATE PUBLICATION {quoted(self.name)} FOR TABLE {listed} WITH (publish_via_partition_root = true)"
        )


@asynccontextmanager
async def crossing(
    servers: Sequence[PostgresServer],
    ddl: str,
    *tables: str,
    filled_with: str = "",
    target_ddl: str | None = None,
) -> AsyncIterator[Crossing]:
    """Databases of its own: one on each of two servers, or both homes in one. `filled_with` is SQL run before the
    slot is made, with $tenant for the tenant's id; its rows are copied under the slot's snapshot."""
    name = f"strata_{secrets.token_hex(4)}"
    source_server, target_server = servers[0], servers[-1]
    same = len(servers) == 1
    dsns = [await _database(source_server, name)]
    dsns.append(dsns[0] if same else await _database(target_server, f"{name}_b"))
    source, target = [await asyncpg.connect(dsn, statement_cache_size=0) for dsn in dsns]
    made = Crossing(source, target, dsns[0], dsns[1], name, uuid4(), tables, SlotPin(name, 0, "", 0))  # type: ignore[arg-type]
    try:
        await target.execute(f"CREATE SCHEMA strata; {PROGRESS_TABLE_SQL}")
        for side, schema, text in ((source, OLD, ddl), (target, NEW, target_ddl or ddl)):
            await side.execute(f"CREATE SCHEMA {quoted(schema)}; SET search_path = {quoted(schema)}; {text}")
        await source.execute(
            f"SET search_path = {quoted(OLD)}; " + filled_with.replace("$tenant", literal(str(made.tenant)))
        )
        await made.publish()
        await create_origin(made.target_dsn, name)
        async with exported_slot(made.source_dsn, name, deadline_s=PATIENCE_S) as slot:
            made.pin = slot.pin
            await _copy(made, slot.snapshot_name)
        await start_progress(made.target_dsn, name, made.attempt, made.pin.consistent_point)
        yield made
    finally:
        await source.close()
        await target.close()
        await drop_slot(made.source_dsn, name)
        await drop_origin(made.target_dsn, name)
        for server, database in ((source_server, name), (target_server, f"{name}_b")):
            admin = await asyncpg.connect(server.admin_dsn)
            await admin.execute(f"DROP DATABASE IF EXISTS {quoted(database)} WITH (FORCE)")
            await admin.close()


async def _database(server: PostgresServer, name: str) -> str:
    admin = await asyncpg.connect(server.admin_dsn)
    await admin.execute(f"CREATE DATABASE {quoted(name)}")
    await admin.close()
    return server.dsn(name)


async def _copy(made: Crossing, snapshot: str) -> None:
    reader = await asyncpg.connect(made.source_dsn)
    await made.target.execute("SET session_replication_role = replica")
    async with reader.transaction(isolation="repeatable_read", readonly=True):
        await reader.execute(f"SET TRANSACTION SNAPSHOT {literal(snapshot)}")
        for table in made.tables:
            columns = [
                row["attname"]
                for row in await reader.fetch(
                    "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0"
                    " AND NOT attisdropped AND attgenerated = ''",
                    f"{quoted(OLD)}.{quoted(table)}",
                )
            ]
            listed = ", ".join(map(quoted, columns))
            chunks: list[bytes] = []

            async def keep(chunk: bytes, chunks: list[bytes] = chunks) -> None:
                chunks.append(chunk)

            await reader.copy_from_query(
                f"SELECT {listed} FROM {quoted(OLD)}.{quoted(table)} WHERE tenant_id = {literal(str(made.tenant))}",
                output=keep,
            )

            async def given(chunks: list[bytes] = chunks) -> AsyncIterator[bytes]:
                for chunk in chunks:
                    yield chunk

            await made.target.copy_to_table(table, schema_name=NEW, columns=columns, source=given())
    await reader.close()
    await made.target.execute("RESET session_replication_role")
