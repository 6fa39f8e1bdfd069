"""Transactions of any size: flat memory, all or nothing."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator

import asyncpg
import msgspec
import pytest

from strata.migrator.pump import PumpOptions
from strata.migrator.replay import ReplayOptions
from strata.migrator.stream import StreamOptions
from tests.builders.streams import NEW, PATIENCE_S, Crossing, crossing
from tests.servers import PostgresServer

ITEM = """
    CREATE TABLE item (tenant_id uuid, id int, text text, PRIMARY KEY (tenant_id, id));
    CREATE TABLE other (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id))
"""
SMALL = PumpOptions(batch_bytes=64 * 1024, settle_bytes=32 * 1024)


@pytest.fixture
async def items(postgres_server: PostgresServer, second_postgres_server: PostgresServer) -> AsyncIterator[Crossing]:
    async with crossing((postgres_server, second_postgres_server), ITEM, "item", "other") as made:
        yield made


@pytest.mark.parametrize("streaming", [pytest.param(False, marks=pytest.mark.slow), True])
async def test_memory_does_not_follow_the_size_of_a_transaction(items: Crossing, *, streaming: bool) -> None:
    if streaming:
        await items.source.execute(f"ALTER DATABASE {items.name} SET logical_decoding_work_mem = '64kB'")
    options = ReplayOptions(pump=SMALL, stream=StreamOptions(streaming=streaming))
    async with items.replay(options) as replay:
        await items.source.execute("INSERT INTO item SELECT $1, i, 'x' FROM generate_series(1, 100) i", items.tenant)
        await items.settle(replay)
        peaks = []
        for first, last in ((1000, 4000), (10_000, 40_000)):
            gc.collect()
            tracemalloc.start()
            await items.source.execute(
                "INSERT INTO item SELECT $1, i, repeat('y', 50) FROM generate_series($2::int, $3) i",
                items.tenant,
                first,
                last,
            )
            await items.settle(replay)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert replay.status().applier.segments > 30
    # Ten times the rows. How many pieces are under way at once is a matter of the moment, two or three times as much.
    assert peaks[1] < peaks[0] * 4
    await items.assert_equal()


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_one_transaction_of_a_million_rows(items: Crossing) -> None:
    async with items.replay() as replay:
        async with items.source.transaction():
            await items.source.execute(
                "INSERT INTO item SELECT $1, i, repeat('y', 50) FROM generate_series(1, 1000000) i", items.tenant
            )
            await items.source.execute("UPDATE item SET text = 'third' WHERE id % 3 = 0")
            await items.source.execute("DELETE FROM item WHERE id % 10 = 0")
        await items.settle(replay, within_s=3000)
    assert await items.target.fetchval("SELECT count(*) FROM t_new.item") == 900_000
    await items.assert_equal()


async def test_half_a_transaction_is_never_left_behind(items: Crossing) -> None:
    """Its pieces go to the target while it is read; whoever ends the replay in between undoes them."""
    async with items.replay(ReplayOptions(pump=SMALL)) as replay:
        await items.source.execute(
            "INSERT INTO item SELECT $1, i, repeat('z', 99) FROM generate_series(1, 20000) i", items.tenant
        )
        while replay.status().applier.segments < 3:  # noqa: ASYNC110 - whatever is a piece
            await asyncio.sleep(0)
    assert await items.target.fetchval(f"SELECT count(*) FROM {NEW}.item") in {0, 20_000}
    await items.catch_up()
    await items.assert_equal()


async def test_pieces_of_one_transaction_may_undo_each_other(items: Crossing) -> None:
    async with items.replay(ReplayOptions(pump=SMALL)) as replay, asyncio.timeout(PATIENCE_S):
        async with items.source.transaction():
            await items.source.execute(
                "INSERT INTO item SELECT $1, i, 'a' FROM generate_series(1, 2000) i", items.tenant
            )
            await items.source.execute("UPDATE item SET text = 'b', id = id + 5000")
            await items.source.execute("DELETE FROM item WHERE id % 2 = 0")
            await items.source.execute(
                "INSERT INTO item SELECT $1, i, 'c' FROM generate_series(1, 2000) i", items.tenant
            )
        await items.settle(replay)
    await items.assert_equal()


async def _until_sent(items: Crossing) -> None:
    """Version 18 does not send what it sees has been rolled back: it must be read before. Others' commits have the log
    written as far as it goes; a source that has nothing more to read has sent it."""
    other = await asyncpg.connect(items.source_dsn)
    await other.execute("SELECT pg_logical_emit_message(true, 'tests', '')")
    position = await other.fetchval("SELECT pg_current_wal_flush_lsn()::text")
    sent = (
        "SELECT r.sent_lsn >= $1::text::pg_lsn FROM pg_stat_replication r JOIN pg_replication_slots s"
        " ON s.active_pid = r.pid WHERE s.slot_name = $2"
    )
    async with asyncio.timeout(PATIENCE_S):
        while not await other.fetchval(sent, position, items.name):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    await other.close()


async def test_transactions_received_in_progress_respect_roll_backs(items: Crossing) -> None:
    await items.source.execute(f"ALTER DATABASE {items.name} SET logical_decoding_work_mem = '64kB'")
    fill = "INSERT INTO {} SELECT $1, i{} FROM generate_series($2::int, $3) i"
    async with items.replay(ReplayOptions(pump=SMALL, stream=StreamOptions(streaming=True))) as replay:
        transaction = items.source.transaction()
        await transaction.start()
        await items.source.execute(fill.format("item", ", 'kept'"), items.tenant, 1, 3000)
        with pytest.raises(ZeroDivisionError):
            async with items.source.transaction():
                await items.source.execute(fill.format("other", ""), items.tenant, 1, 3000)
                await items.source.execute("UPDATE item SET text = 'lost'")
                await _until_sent(items)
                raise ZeroDivisionError
        await items.source.execute(fill.format("other", ""), items.tenant, 5000, 8000)
        await asyncio.sleep(0.5)
        assert await items.target.fetchval(f"SELECT count(*) FROM {NEW}.item") == 0
        await transaction.commit()
        with pytest.raises(ZeroDivisionError):
            async with items.source.transaction():
                await items.source.execute("UPDATE item SET text = 'never', id = -id")
                raise ZeroDivisionError
        await items.source.execute("UPDATE other SET id = -id WHERE id < 5100")
        await items.settle(replay)
    await items.assert_equal()
    assert len(await items.rows(items.target, NEW, "item")) == 3000


async def test_a_row_of_many_megabytes(items: Crossing) -> None:
    options = msgspec.structs.replace(ReplayOptions(), pump=SMALL)
    async with items.replay(options) as replay:
        await items.source.execute("INSERT INTO item VALUES ($1, 1, repeat('0123456789', 2000000))", items.tenant)
        await items.source.execute("UPDATE item SET id = 2")
        await items.settle(replay)
    await items.assert_equal()
