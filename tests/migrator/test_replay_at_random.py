"""Whatever is done on the source, in whatever order and grouping: the target ends up the same."""

from __future__ import annotations

import contextlib
import random

import asyncpg
import pytest

from strata.migrator.pump import PumpOptions
from strata.migrator.replay import ReplayOptions
from strata.migrator.stream import StreamOptions
from tests.builders.streams import Crossing, crossing
from tests.servers import PostgresServer

ITEM = """
    CREATE TABLE item (
        tenant_id uuid, id int, code int, n int, note text, PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, code));
    ALTER TABLE item ALTER COLUMN note SET STORAGE EXTERNAL;
    CREATE INDEX ON item (tenant_id, n)
"""
KEYS = 12


async def _step(items: Crossing, dice: random.Random) -> None:
    key, other = dice.randint(1, KEYS), dice.randint(1, KEYS)
    note = dice.choice(["NULL", "''", "repeat('a', 5000)", "repeat(md5(random()::text), 200)"])
    statement = dice.choice(
        [
            f"INSERT INTO item VALUES ('{items.tenant}', {key}, {other}, 0, {note})",
            f"UPDATE item SET n = n + 1 WHERE id = {key}",
            f"UPDATE item SET note = {note} WHERE id = {key}",
            f"UPDATE item SET id = {other} WHERE id = {key}",
            f"UPDATE item SET id = {other}, note = {note} WHERE id = {key}",
            f"UPDATE item SET code = {other} WHERE id = {key}",
            f"UPDATE item SET n = {other} WHERE id > {key}",
            f"UPDATE item SET code = -code WHERE id IN ({key}, {other})",
            f"DELETE FROM item WHERE id = {key}",
        ]
    )
    # One that breaks a constraint is undone by its savepoint, as an application would do it.
    with contextlib.suppress(asyncpg.UniqueViolationError):
        async with items.source.transaction():
            await items.source.execute(statement)


async def _swap(items: Crossing, dice: random.Random, column: str) -> None:
    one, two = dice.sample(range(1, KEYS + 1), 2)
    for old, new in ((one, 1000), (two, one), (1000, two)):
        await items.source.execute(f"UPDATE item SET {column} = {new} WHERE {column} = {old}")


@pytest.mark.parametrize("seed", range(4))
async def test_at_random(postgres_server: PostgresServer, second_postgres_server: PostgresServer, seed: int) -> None:
    dice = random.Random(seed)
    options = ReplayOptions(
        pump=PumpOptions(batch_bytes=dice.choice([2_000, 20_000, 8_000_000]), settle_bytes=1_000),
        stream=StreamOptions(streaming=bool(seed % 2)),
    )
    async with crossing((postgres_server, second_postgres_server), ITEM, "item") as items:
        await items.source.execute(f"ALTER DATABASE {items.name} SET logical_decoding_work_mem = '64kB'")
        for _ in range(4):
            async with items.replay(options) as replay:
                for _ in range(25):
                    if dice.random() < 0.2:
                        await replay.halt() if dice.random() < 0.5 else replay.go()
                    async with items.source.transaction():
                        for _ in range(dice.choice([1, 1, 3, 10])):
                            await _step(items, dice)
                        if dice.random() < 0.3:
                            await _swap(items, dice, dice.choice(["id", "code"]))
                replay.go()
                if dice.random() < 0.5:
                    await items.settle(replay)
                    await items.assert_equal()
        await items.catch_up(options)
        await items.assert_equal()
