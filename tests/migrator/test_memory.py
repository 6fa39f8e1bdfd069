"""What a move holds in memory has a bound (docs/moving.md), whatever the size of a tenant or a row; of a transaction:
test_replay_size."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Awaitable

import pytest

from strata.migrator import ranges, verifier
from strata.migrator.pump import PumpOptions
from strata.migrator.replay import ReplayOptions
from strata.migrator.verifier import Comparison, Verifier
from tests.builders.copying import TENANT, Homes, homes
from tests.builders.streams import crossing
from tests.servers import PostgresServer

MIB = 2**20
WORDS = "CREATE TABLE goods (tenant_id uuid NOT NULL, id bigint NOT NULL, words text, PRIMARY KEY (tenant_id, id))"
WIDE_MIB = 8
Servers = tuple[PostgresServer, PostgresServer]


@pytest.fixture
def both_servers(postgres_server: PostgresServer, second_postgres_server: PostgresServer) -> Servers:
    return postgres_server, second_postgres_server


async def peak_of(work: Awaitable[object]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        await work
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def fill(made: Homes, rows: int, size_bytes: int) -> None:
    for connection in (made.at_source, made.at_target):
        await connection.execute("ALTER TABLE goods ALTER COLUMN words SET STORAGE EXTERNAL")
    await made.at_source.execute(
        "INSERT INTO goods SELECT $1, i, repeat(chr(65 + i % 26), $2) FROM generate_series(1, $3::int) i",
        TENANT,
        size_bytes,
        rows,
    )


async def test_a_copy_does_not_hold_a_tenant(both_servers: Servers) -> None:
    async with homes(*both_servers, WORDS) as made:
        await fill(made, 40_000, 1_000)
        assert await peak_of(made.copy(workers=2)) < 8 * MIB
        assert await made.at_target.fetchval("SELECT count(*) FROM goods") == 40_000


async def test_a_copy_holds_a_few_rows_at_most_however_wide_they_are(both_servers: Servers) -> None:
    async with homes(*both_servers, WORDS) as made:
        await fill(made, 10, WIDE_MIB * MIB)
        assert await peak_of(made.copy(workers=1)) < 6 * WIDE_MIB * MIB
        assert await made.at_target.fetchval("SELECT sum(length(words)) FROM goods") == 10 * WIDE_MIB * MIB


async def test_a_stream_holds_a_few_rows_at_most_however_wide_they_are(both_servers: Servers) -> None:
    ddl = WORDS.replace("words text", "words text STORAGE EXTERNAL")
    small = ReplayOptions(pump=PumpOptions(batch_bytes=64 * 1024, settle_bytes=32 * 1024))
    async with crossing(both_servers, ddl, "goods") as made, made.replay(small) as replay:

        async def write_and_settle() -> None:
            await made.source.execute(
                "INSERT INTO goods SELECT $1, i, repeat('y', $2) FROM generate_series(1, 10) i",
                made.tenant,
                WIDE_MIB * MIB,
            )
            await made.settle(replay)

        assert await peak_of(write_and_settle()) < 8 * WIDE_MIB * MIB
        await made.assert_equal()


@pytest.fixture
def short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a tenant has that takes long to read: hundreds."""
    for name in ("FIRST_ROWS", "FEWEST_ROWS", "MOST_ROWS"):
        monkeypatch.setattr(ranges, name, 200)


async def compared(made: Homes, found: list[Comparison]) -> None:
    found.append(await Verifier(made.source, made.target).compare(None, None))


@pytest.mark.usefixtures("short_ranges")
async def test_a_comparison_does_not_hold_what_its_ranges_said(both_servers: Servers) -> None:
    async with homes(*both_servers, WORDS) as made:
        await fill(made, 40_000, 10)
        await made.copy()
        await made.at_source.execute("ANALYZE goods")
        found: list[Comparison] = []
        assert await peak_of(compared(made, found)) < 1 * MIB
        assert (found[0].equal, found[0].rows) == (True, 40_000)


async def test_a_comparison_does_not_hold_all_that_differs(
    both_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier, "ROWS_LOOKED_AT", 1_000)
    async with homes(*both_servers, WORDS) as made:
        await fill(made, 40_000, 10)
        await made.copy()
        await made.at_source.execute("ANALYZE goods")
        await made.at_target.execute("UPDATE goods SET words = 'other'; DELETE FROM goods WHERE id % 4 = 0")
        found: list[Comparison] = []
        assert await peak_of(compared(made, found)) < 4 * MIB
        assert len(found[0].differences) == verifier.NAMED_PER_TABLE
        # Of those that were not looked at, how many fewer there are is known all the same.
        assert 10_000 <= found[0].tables[0].differing_rows < 40_000
        assert (found[0].tables[0].source_rows, found[0].tables[0].target_rows) == (40_000, 30_000)
