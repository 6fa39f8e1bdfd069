"""Stopping where one is told to, and being whole there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from strata.migrator.slots import exported_slot, slot_state
from tests.builders.streams import NEW, OLD, PATIENCE_S, Crossing, crossing
from tests.servers import PostgresServer

ITEM = "CREATE TABLE item (tenant_id uuid, id int, n int NOT NULL DEFAULT 0, PRIMARY KEY (tenant_id, id))"
FILLED = "INSERT INTO item SELECT $tenant, i FROM generate_series(1, 50) i"
IMAGE = "SELECT id, n FROM {}.item WHERE tenant_id = $1 ORDER BY id"


@pytest.fixture
async def items(postgres_server: PostgresServer, second_postgres_server: PostgresServer) -> AsyncIterator[Crossing]:
    async with crossing((postgres_server, second_postgres_server), ITEM, "item", filled_with=FILLED) as made:
        yield made


async def test_halted_nothing_is_applied_and_nothing_is_open(items: Crossing) -> None:
    async with items.replay() as replay:
        await items.source.execute("UPDATE item SET n = 1")
        await replay.halt()
        await items.source.execute("UPDATE item SET n = 2")
        await asyncio.sleep(0.3)
        assert await items.target.fetchval("SELECT count(*) FROM t_new.item WHERE n = 2") == 0
        assert not await items.target.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL"
            " AND pid <> pg_backend_pid()"
        )
        replay.go()
        await items.settle(replay)
    await items.assert_equal()


async def test_keepalives_are_answered_while_halted(items: Crossing) -> None:
    """Else the source ends the stream, while much waits to be read as well as when nothing does."""
    await items.source.execute(f"ALTER DATABASE {items.name} SET wal_sender_timeout = '1500ms'")
    async with items.replay() as replay:
        await replay.halt()
        before = await slot_state(items.source_dsn, items.name)
        await items.source.execute("INSERT INTO item SELECT $1, i FROM generate_series(100, 30000) i", items.tenant)
        await asyncio.sleep(2.5)
        after = await slot_state(items.source_dsn, items.name)
        assert before is not None
        assert after is not None
        assert after.active_pid == before.active_pid is not None
        replay.go()
        await items.settle(replay)
    await items.assert_equal()


async def _write(items: Crossing, worker: int, stop: asyncio.Event) -> int:
    connection = await asyncpg.connect(items.source_dsn)
    await connection.execute(f'SET search_path = "{OLD}"; SET synchronous_commit = {"off" if worker % 2 else "on"}')
    made = 0
    while not stop.is_set():
        async with connection.transaction():
            await connection.execute("UPDATE item SET n = n + 1 WHERE id % 4 = $1", worker)
            await connection.execute("INSERT INTO item VALUES ($1, $2)", items.tenant, 1000 * (worker + 1) + made)
            await asyncio.sleep(0.001 * (made % 3))
        made += 1
    await connection.close()
    return made


async def test_source_and_target_snapshots_are_of_one_moment_under_writers(items: Crossing) -> None:
    """The temporary slot's snapshot, and the target with exactly the transactions before its consistent point."""
    stop = asyncio.Event()
    async with items.replay() as replay:
        writers = [asyncio.create_task(_write(items, worker, stop)) for worker in range(4)]
        try:
            for number in range(5):
                await asyncio.sleep(0.1)
                async with asyncio.timeout(PATIENCE_S):
                    await replay.halt()
                    name = f"{items.name}_v{number}"
                    async with exported_slot(items.source_dsn, name, deadline_s=10, temporary=True) as slot:
                        await asyncio.sleep(0.05)
                        there = await _image(items.source_dsn, OLD, slot.snapshot_name, items)
                        async with replay.target_snapshot_at(slot.pin.consistent_point) as snapshot:
                            here = await _image(items.target_dsn, NEW, snapshot, items)
                    assert here == there
                    replay.go()
        finally:
            stop.set()
            made = await asyncio.gather(*writers)
        # Those that did not wait for their commits to be written: a commit that waits has the log written up to itself.
        await items.source.execute("SELECT pg_logical_emit_message(true, 'tests', '')")
        await items.settle(replay)
        await items.assert_equal()
    assert sum(made) > 20


async def _image(dsn: str, schema: str, snapshot: str, items: Crossing) -> list[tuple[int, int]]:
    reader = await asyncpg.connect(dsn)
    try:
        async with reader.transaction(isolation="repeatable_read", readonly=True):
            await reader.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
            return [tuple(row) for row in await reader.fetch(IMAGE.format(f'"{schema}"'), items.tenant)]
    finally:
        await reader.close()


async def test_the_slot_must_not_be_made_before_the_halt(items: Crossing) -> None:
    async with items.replay() as replay:
        with pytest.raises(RuntimeError, match="halt"):
            async with replay.target_snapshot_at(items.pin.consistent_point):
                pass
