"""A copy whose neighbours suffer goes slower, and arrives."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import msgspec
import pytest

from strata.migrator.copy_sessions import Warrant
from strata.migrator.throttle import Limits, Pace, throttling
from strata.platform.embedded import EmbeddedPostgres, EmbeddedStandby
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


class Followed(msgspec.Struct, frozen=True):
    """A source of its own with a standby, both of which a test may set as it likes."""

    goods: Homes
    standby_dsn: str

    @asynccontextmanager
    async def behind(self) -> AsyncIterator[None]:
        """The standby receives and replays nothing meanwhile."""
        standby = await asyncpg.connect(self.standby_dsn)
        try:
            await standby.execute("SELECT pg_wal_replay_pause()")
            yield
            await standby.execute("SELECT pg_wal_replay_resume()")
        finally:
            await standby.close()

    async def configure(self, **settings: str) -> None:
        for name, value in settings.items():
            await self.goods.at_source.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        await self.goods.at_source.execute("SELECT pg_reload_conf()")

    async def write_log(self, mib: int) -> None:
        await self.goods.at_source.execute(
            "SELECT pg_logical_emit_message(false, 'tests', repeat('x', 1048576)) FROM generate_series(1, $1::int)", mib
        )


@pytest.fixture(scope="module")
async def followed(second_postgres_server: PostgresServer) -> AsyncIterator[Followed]:
    """Directly under /tmp: PostgreSQL's account must get there when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="strata-followed-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        # Durable: a server that waits for no disk does not wait as long as it is told to, either.
        with EmbeddedPostgres(Path(folder), "followed") as primary:
            standby = EmbeddedStandby(Path(folder), "following", primary.dsn(), durable=False)
            with standby:
                source = PostgresServer("followed", primary.dsn(), "embedded")
                async with homes(source, second_postgres_server, GOODS) as made:
                    yield Followed(made, standby.dsn())


async def pressed(pace: Pace, says: str | None) -> None:
    async with asyncio.timeout(60):
        while not (says in pace.pressure if says and pace.pressure else says == pace.pressure):  # noqa: ASYNC110 - the servers show it
            await asyncio.sleep(0.05)


# One at a time is looked for; by the others a machine that has much else to do would be under pressure, too.
UNMOVED = Limits(slower_times=1000, slow_ms=60_000, late_share=1.0)


@pytest.mark.timeout(180)
async def test_a_standby_that_falls_behind_slows_it_down_until_it_has_caught_up(followed: Followed) -> None:
    limits = msgspec.structs.replace(UNMOVED, standby_lag_bytes=4 * 2**20)
    async with throttling([followed.goods.source], 4, limits, Warrant()) as throttle:
        await pressed(throttle.pace, None)
        async with followed.behind():
            await followed.write_log(16)
            await pressed(throttle.pace, "A standby of")
            assert throttle.pace.level < 4
        await pressed(throttle.pace, None)
        async with asyncio.timeout(60):
            while throttle.pace.level < 4:  # noqa: ASYNC110 - a tenth at each look
                await asyncio.sleep(0.05)


@pytest.mark.timeout(180)
async def test_a_slot_that_is_near_to_being_given_up_slows_it_down(followed: Followed) -> None:
    at_source = followed.goods.at_source
    await followed.configure(max_slot_wal_keep_size="256MB")
    limits = msgspec.structs.replace(UNMOVED, slot_room_bytes=200 * 2**20)
    await at_source.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
    try:
        async with throttling([followed.goods.source], 4, limits, Warrant()) as throttle:
            await pressed(throttle.pace, None)
            await followed.write_log(120)
            await pressed(throttle.pace, "MiB of log left before it is given up")
            await at_source.execute("SELECT pg_drop_replication_slot('forgotten')")
            await pressed(throttle.pace, None)
    finally:
        await at_source.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'forgotten'"
        )


@pytest.mark.timeout(180)
async def test_commits_that_take_longer_than_before_slow_it_down(followed: Followed) -> None:
    limits = msgspec.structs.replace(UNMOVED, slower_times=3.0, slow_ms=60.0)
    async with throttling([followed.goods.source], 4, limits, Warrant()) as throttle:
        await followed.configure(commit_delay="90000", commit_siblings="0")
        await pressed(throttle.pace, "before the copy")
        await followed.configure(commit_delay="0")
        await pressed(throttle.pace, None)
