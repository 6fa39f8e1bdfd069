"""A copy whose neighbours suffer goes slower, and arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from strata.migrator.copy_sessions import Warrant
from strata.migrator.throttle import Limits, throttling
from tests.builders.copying import GOODS, TENANT, Homes, homes
from tests.servers import PostgresServer

# With nothing allowed every commit is too slow.
NOTHING_ALLOWED = Limits(slower_times=0, slow_ms=0)


@pytest.fixture
async def few_goods(postgres_server: PostgresServer, second_postgres_server: PostgresServer) -> AsyncIterator[Homes]:
    async with homes(postgres_server, second_postgres_server, GOODS) as made:
        await made.at_source.execute(
            "INSERT INTO goods SELECT $1, i, 'SKU-' || i, i FROM generate_series(1, 50) i", TENANT
        )
        yield made


async def test_under_pressure_that_does_not_end_a_worker_that_is_held_back_holds_up_nobody(few_goods: Homes) -> None:
    async with throttling([few_goods.source, few_goods.target], 8, NOTHING_ALLOWED, Warrant()) as throttle:
        copied = await few_goods.copy(throttle=throttle, workers=8)
    assert copied.rows == {"goods": 50}
    assert throttle.pace.held_back > 0
    assert throttle.pace.lanes < 8
    assert throttle.pace.pressure is not None
    assert "before the copy" in throttle.pace.pressure


async def test_without_pressure_all_workers_go_on(few_goods: Homes) -> None:
    plenty = Limits(slower_times=1000, slow_ms=60_000)
    async with throttling([few_goods.source, few_goods.target], 2, plenty, Warrant()) as throttle:
        copied = await few_goods.copy(throttle=throttle)
    assert copied.rows == {"goods": 50}
    assert throttle.pace.held_back == 0
    assert throttle.pace.level == 2


async def test_resting_between_rows_it_copies_all_of_them(few_goods: Homes) -> None:
    copied = await few_goods.copy(rest=lambda _worker, worked_s: 1000 * worked_s)
    assert copied.rows == {"goods": 50}
    assert copied.seconds > 0.05, "a nap after every row"
