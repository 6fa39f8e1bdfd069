"""Copy and comparison rest as long as they are told to, whatever comes between them and the clock."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from strata.migrator.rests import Rests
from strata.migrator.verifier import DifferenceKind, Verifier
from strata.platform.database.addresses import parse
from strata.platform.database.administration import administrator
from tests.builders.copying import GOODS, TENANT, Homes, fill_goods, homes
from tests.servers import PostgresServer

MORE_GOODS = GOODS.replace("goods", "more_goods")
ROWS = 10_000
"""As many as the first range of a table has."""


@pytest.fixture
async def goods_and_more(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> AsyncIterator[Homes]:
    """One row more than a range in the greater table."""
    async with homes(postgres_server, second_postgres_server, GOODS + MORE_GOODS) as made:
        await fill_goods(made.at_source, ROWS + 1)
        await made.at_source.execute(
            "INSERT INTO more_goods SELECT * FROM goods WHERE id <= $1 AND tenant_id = $2", ROWS, TENANT
        )
        yield made


async def test_what_the_last_row_of_a_table_took_does_not_make_the_next_table_wait(goods_and_more: Homes) -> None:
    copied = await goods_and_more.copy(workers=1, rest=lambda _worker, worked_s: 4 * worked_s)
    assert copied.rows == {"goods": ROWS + 1, "more_goods": ROWS}
    assert copied.seconds < 10, "a nap after each row of the other table is twenty"


async def test_naps_that_last_too_long_are_not_taken_for_work(postgres_server: PostgresServer) -> None:
    """Each is longer than it should be, by what it takes to wake. Taken for work it would be rested after, fifty times."""
    rests = Rests(lambda worked_s: 49 * worked_s)
    async with administrator(parse(postgres_server.admin_dsn)) as session:
        for _ in range(12):
            begun = time.monotonic()
            await session.fetchval(f"SELECT count(*) FROM generate_series(1, 2000) i WHERE true{rests.condition}")
            await rests.lasted(session, time.monotonic() - begun, 2000)
    # A row of these takes less than the first guess: it has been found out, beside naps that took fifty times as long.
    assert rests._row_s < 3e-6


async def test_rows_that_are_looked_for_are_rested_among_and_found(goods_and_more: Homes) -> None:
    await goods_and_more.copy(workers=1)
    await goods_and_more.at_target.execute("UPDATE goods SET quantity = 77 WHERE id = 5")
    verifier = Verifier(goods_and_more.source, goods_and_more.target, rest=lambda _worker, worked_s: worked_s)
    comparison = await verifier.compare(None, None)
    assert [(each.kind, each.key["id"]) for each in comparison.differences] == [(DifferenceKind.CHANGED, "5")]
