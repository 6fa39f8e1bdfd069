"""Changes arrive as they were made: whose, which, in what order, exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import msgspec
import psycopg
import pytest

from strata.migrator.origins import create_origin, drop_origin, end_applier
from strata.migrator.progress import read_progress, start_progress
from strata.migrator.pump import PumpOptions
from strata.migrator.replay import Replay, ReplayOptions, Source, Target, marker_prefix, replaying
from strata.migrator.replication_errors import (
    ApplierBusyError,
    AttemptSupersededError,
    ForeignRowError,
    MissingRowError,
    PublicationMissingError,
    SchemaChangedError,
    SlotAheadError,
    SlotMissingError,
    SlotRecreatedError,
    TargetLostError,
    TruncateError,
)
from strata.migrator.slots import drop_slot, exported_slot, slot_state
from strata.migrator.stream import StreamOptions
from tests.builders.streams import NEW, OLD, PATIENCE_S, Crossing, crossing
from tests.servers import PostgresServer

ITEM = """
    CREATE TABLE item (
        tenant_id uuid NOT NULL, id int NOT NULL, name text, quantity bigint, note text,
        PRIMARY KEY (tenant_id, id), CONSTRAINT uq_item_quantity UNIQUE (tenant_id, quantity));
    ALTER TABLE item ALTER COLUMN note SET STORAGE EXTERNAL
"""
FILLED = "INSERT INTO item SELECT $tenant, i, 'n' || i, i, repeat('long' || i, 2000) FROM generate_series(1, 10) i"


@pytest.fixture
async def items(postgres_server: PostgresServer, second_postgres_server: PostgresServer) -> AsyncIterator[Crossing]:
    async with crossing((postgres_server, second_postgres_server), ITEM, "item", filled_with=FILLED) as made:
        yield made


async def test_inserts_updates_and_deletes_arrive(items: Crossing) -> None:
    async with items.replay() as replay:
        await items.source.execute(
            "INSERT INTO item VALUES ($1, 11, 'eleven', 11, NULL), ($1, 12, '', 12, 'x')", items.tenant
        )
        await items.source.execute("UPDATE item SET quantity = quantity + 100 WHERE id < 5")
        await items.source.execute("DELETE FROM item WHERE id IN (5, 12)")
        await items.settle(replay)
    await items.assert_equal()
    assert len(await items.rows(items.target, NEW, "item")) == 10


async def test_small_transactions_gather_until_somebody_waits_for_them(items: Crossing) -> None:
    patient = ReplayOptions(pump=PumpOptions(gather_s=3600.0))
    async with items.replay(patient) as replay:
        await _five_changes(items, replay)
        assert replay.status().applier.changes == 0
        await items.settle(replay)
        assert (replay.status().applier.changes, replay.status().applier.segments) == (5, 1)
        await _five_changes(items, replay)
        await replay.halt()
        assert replay.status().applier.changes == 10
    await items.assert_equal()


async def test_what_has_gathered_goes_by_itself(items: Crossing) -> None:
    async with items.replay() as replay:
        await _five_changes(items, replay)
        async with asyncio.timeout(PATIENCE_S):
            while replay.status().applier.changes < 5:  # noqa: ASYNC110 - nobody may wait for it: that would hurry it
                await asyncio.sleep(0.01)
    await items.assert_equal()


async def _five_changes(items: Crossing, replay: Replay) -> None:
    """Of a transaction each, until they have been read."""
    read = replay.status().transactions
    for _ in range(5):
        await items.source.execute("UPDATE item SET quantity = quantity + 100 WHERE id = 1")
    async with asyncio.timeout(PATIENCE_S):
        while replay.status().transactions < read + 5:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


async def test_only_the_tenants_rows_arrive(items: Crossing) -> None:
    stranger = uuid4()
    async with items.replay() as replay:
        await items.source.execute("INSERT INTO item VALUES ($1, 1), ($2, 20)", stranger, items.tenant)
        await items.source.execute("UPDATE item SET name = 'all'")
        await items.settle(replay)
    await items.assert_equal()
    assert await items.target.fetchval("SELECT count(*) FROM t_new.item WHERE tenant_id = $1", stranger) == 0


async def test_a_filter_that_lets_another_tenants_row_through_is_found_out(items: Crossing) -> None:
    await items.source.execute(f'ALTER PUBLICATION {items.name} SET TABLE "{OLD}".item')
    async with items.replay() as replay:
        await items.source.execute("INSERT INTO item VALUES ($1, 1)", uuid4())
        with pytest.raises(ForeignRowError):
            await items.settle(replay)
    assert await items.target.fetchval("SELECT count(*) FROM t_new.item") == 10


async def test_a_value_kept_outside_its_row_survives_a_change_of_the_others(items: Crossing) -> None:
    """Its new row says «unchanged»: read as NULL it would take the only copy away."""
    async with items.replay() as replay:
        await items.source.execute("UPDATE item SET name = 'x'")
        await items.source.execute("UPDATE item SET name = 'y', note = 'short' WHERE id = 2")
        await items.source.execute("UPDATE item SET name = 'z' WHERE id IN (2, 3)")
        await items.settle(replay)
    await items.assert_equal()
    assert await items.target.fetchval("SELECT length(note) FROM t_new.item WHERE id = 3") > 8000


async def test_a_key_changes_with_a_value_kept_outside_its_row(items: Crossing) -> None:
    async with items.replay() as replay:
        async with items.source.transaction():
            await items.source.execute("UPDATE item SET quantity = -quantity")
            await items.source.execute("UPDATE item SET id = id + 100 WHERE id < 4")
            await items.source.execute("UPDATE item SET id = id - 100, name = 'back' WHERE id > 102")
            await items.source.execute("INSERT INTO item VALUES ($1, 1, 'again', 1)", items.tenant)
            await items.source.execute("UPDATE item SET note = 'new', id = 200 WHERE id = 7")
        await items.settle(replay)
    await items.assert_equal()


async def test_keys_are_swapped(items: Crossing) -> None:
    async with items.replay() as replay:
        async with items.source.transaction():
            await items.source.execute("UPDATE item SET note = 'short'")
            for old, new in ((1, -1), (2, 1), (-1, 2)):
                await items.source.execute("UPDATE item SET id = $2 WHERE id = $1", old, new)
        await items.settle(replay)
    await items.assert_equal()


async def test_unique_values_are_swapped_in_one_transaction(items: Crossing) -> None:
    async with items.replay() as replay:
        async with items.source.transaction():
            for old, new in ((1, -1), (2, 1), (-1, 2)):
                await items.source.execute("UPDATE item SET quantity = $2 WHERE quantity = $1", old, new)
            await items.source.execute("DELETE FROM item WHERE id = 3")
            await items.source.execute("INSERT INTO item VALUES ($1, 30, 'takes', 3)", items.tenant)
        await items.settle(replay)
        assert replay.status().applier.vacated == 1
    await items.assert_equal()
    assert await items.target.fetchval("SELECT min(length(note)) FROM t_new.item WHERE id < 3") > 8000


async def test_a_row_that_came_and_went_never_arrives(items: Crossing) -> None:
    async with items.replay() as replay:
        await replay.halt()
        await items.source.execute("INSERT INTO item VALUES ($1, 50)", items.tenant)
        await items.source.execute("UPDATE item SET id = 51 WHERE id = 50")
        await items.source.execute("DELETE FROM item WHERE id = 51")
        await items.source.execute("DELETE FROM item WHERE id = 1")
        await items.source.execute("INSERT INTO item VALUES ($1, 1, 'reborn')", items.tenant)
        replay.go()
        await items.settle(replay)
    await items.assert_equal()


async def test_truncate_is_refused_by_name(items: Crossing) -> None:
    async with items.replay() as replay:
        await items.source.execute("TRUNCATE item")
        with pytest.raises(TruncateError, match="item"):
            await items.settle(replay)
    assert await items.target.fetchval("SELECT count(*) FROM t_new.item") == 10


async def test_a_table_altered_on_the_way_is_named(items: Crossing) -> None:
    async with items.replay() as replay:
        await items.source.execute("ALTER TABLE item ADD COLUMN colour text")
        await items.source.execute("UPDATE item SET colour = 'blue'")
        with pytest.raises(SchemaChangedError, match="colour"):
            await items.settle(replay)


@pytest.mark.parametrize("change", ["UPDATE item SET name = 'x' WHERE id = 4", "DELETE FROM item WHERE id = 4"])
async def test_a_row_that_the_target_lacks_is_an_error_that_names_its_key(items: Crossing, change: str) -> None:
    await items.target.execute("DELETE FROM t_new.item WHERE id = 4")
    async with items.replay() as replay:
        await items.source.execute(change)
        with pytest.raises(MissingRowError) as caught:
            await items.settle(replay)
    assert caught.value.keys == ((str(items.tenant), "4"),)


async def test_a_key_changed_from_a_row_that_the_target_lacks_is_an_upsert(items: Crossing) -> None:
    await items.target.execute("DELETE FROM t_new.item WHERE id = 4")
    async with items.replay() as replay:
        await items.source.execute("UPDATE item SET id = 40, note = 'whole' WHERE id = 4")
        await items.settle(replay)
    await items.assert_equal()


async def test_goes_on_exactly_where_it_ended(items: Crossing) -> None:
    for number in range(5):
        async with items.replay() as replay:
            await items.source.execute("UPDATE item SET quantity = quantity + 1000 WHERE id = 1")
            await items.source.execute("INSERT INTO item VALUES ($1, $2)", items.tenant, 100 + number)
            if number % 2:
                await items.settle(replay)
            await items.source.execute("UPDATE item SET name = name || 'x' WHERE id = 2")
    await items.catch_up()
    await items.assert_equal()


async def test_changes_and_progress_are_one_transaction(items: Crossing) -> None:
    """An error after the changes and before the progress row: nothing of either stays, and nothing is applied twice."""
    await items.target.execute(
        "CREATE FUNCTION strata.fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';"
        "CREATE TRIGGER fail BEFORE UPDATE ON strata.apply_progress EXECUTE FUNCTION strata.fail();"
        "ALTER TABLE strata.apply_progress ENABLE ALWAYS TRIGGER fail"
    )
    before = await items.rows(items.target, NEW, "item")
    await items.source.execute("INSERT INTO item VALUES ($1, 77)", items.tenant)
    async with items.replay() as replay:
        with pytest.raises(Exception, match="no"):
            await items.settle(replay)
    assert await items.rows(items.target, NEW, "item") == before
    await items.target.execute("DROP TRIGGER fail ON strata.apply_progress")
    await items.catch_up()
    await items.assert_equal()


async def test_a_slot_ahead_of_the_progress_row_is_refused(items: Crossing) -> None:
    await items.source.execute("INSERT INTO item VALUES ($1, 60)", items.tenant)
    await items.source.execute("SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())", items.name)
    with pytest.raises(SlotAheadError):
        await items.catch_up()


async def test_a_recreated_slot_is_refused(items: Crossing) -> None:
    await items.catch_up()
    await drop_slot(items.source_dsn, items.name)
    await items.source.execute("INSERT INTO item VALUES ($1, 61)", items.tenant)
    with pytest.raises(SlotMissingError):
        await items.catch_up()
    async with exported_slot(items.source_dsn, items.name, deadline_s=PATIENCE_S):
        pass
    with pytest.raises(SlotAheadError):
        await items.catch_up()
    items.pin = msgspec.structs.replace(items.pin, timeline=items.pin.timeline + 1)
    with pytest.raises(SlotRecreatedError):
        await items.catch_up()


async def test_a_publication_that_is_gone_is_noticed_at_the_start(items: Crossing) -> None:
    await items.source.execute(f"DROP PUBLICATION {items.name}")
    with pytest.raises(PublicationMissingError):
        await items.catch_up()


async def test_a_second_applier_is_refused_and_a_sleeper_can_be_ended(items: Crossing) -> None:
    async with items.replay() as replay:
        with pytest.raises(ApplierBusyError):
            await items.catch_up()
        await end_applier(items.target_dsn, items.name)
        await items.source.execute("INSERT INTO item VALUES ($1, 62)", items.tenant)
        with pytest.raises(TargetLostError):
            await replay.failed()
    await items.catch_up()
    await items.assert_equal()


async def test_an_older_attempt_writes_nothing_more(items: Crossing) -> None:
    async with items.replay() as replay:
        await items.settle(replay)
        await items.target.execute("UPDATE strata.apply_progress SET attempt = 2")
        await items.source.execute("INSERT INTO item VALUES ($1, 63)", items.tenant)
        with pytest.raises(AttemptSupersededError):
            await replay.failed()
    assert await items.target.fetchval("SELECT count(*) FROM t_new.item WHERE id = 63") == 0
    with pytest.raises(AttemptSupersededError):
        await items.catch_up()


async def test_applies_up_to_a_marker(items: Crossing) -> None:
    async with items.replay() as replay:
        waiting = asyncio.create_task(replay.apply_until_marker("7"))
        await items.source.execute("UPDATE item SET name = 'last'")
        await items.source.execute("SELECT pg_logical_emit_message(true, $1, '7')", marker_prefix(items.tenant))
        await items.source.execute("SELECT pg_logical_emit_message(true, $1, '8')", marker_prefix(uuid4()))
        async with asyncio.timeout(PATIENCE_S):
            await waiting
            await items.assert_equal()
            await replay.apply_until_marker("7")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await replay.apply_until_marker("8")
    progress = await read_progress(items.target_dsn, items.name)
    assert progress is not None
    assert progress.marker == "7"


async def test_others_traffic_moves_progress_row_and_slot_along(items: Crossing) -> None:
    """Else a quiet tenant on a busy server would keep all of that server's log."""
    options = ReplayOptions(tick_s=0.05)
    options = msgspec.structs.replace(options, pump=msgspec.structs.replace(options.pump, idle_progress_s=0.1))
    async with items.replay(options), asyncio.timeout(PATIENCE_S):
        await items.source.execute("INSERT INTO item SELECT $1, i FROM generate_series(1, 1000) i", uuid4())
        position = await items.source.fetchval("SELECT (pg_current_wal_lsn() - '0/0')::bigint")
        while True:
            state = await slot_state(items.source_dsn, items.name)
            progress = await read_progress(items.target_dsn, items.name)
            assert state is not None
            assert progress is not None
            assert state.confirmed_flush is not None
            assert state.confirmed_flush <= progress.position, "the source was told more than the target has kept"
            if state.confirmed_flush >= position:
                break
            await asyncio.sleep(0.05)


async def test_within_one_database(postgres_server: PostgresServer) -> None:
    async with crossing((postgres_server,), ITEM, "item", filled_with=FILLED) as made, made.replay() as replay:
        await made.source.execute("UPDATE item SET name = 'same'")
        await made.settle(replay)
        await made.assert_equal()
        # What was applied is in the same log, and does not come round again.
        assert replay.status().transactions == 1


@pytest.mark.parametrize("at_the_source", [True, False])
async def test_two_streams_do_not_feed_each_other(items: Crossing, *, at_the_source: bool) -> None:
    """A retention: changes go back; those that came from there do not go round. A source before version 16 sends them
    all the same."""
    options = ReplayOptions(stream=StreamOptions(origin_none=at_the_source))
    back = f"{items.name}_back"
    await items.target.execute(
        f"CREATE PUBLICATION {back} FOR TABLE t_new.item WITH (publish_via_partition_root = true)"
    )
    await items.source.execute(
        "CREATE SCHEMA strata; CREATE TABLE strata.apply_progress (origin text PRIMARY KEY,"
        " attempt bigint, position pg_lsn, marker text, updated_at timestamptz)"
    )
    await create_origin(items.source_dsn, back)
    try:
        async with exported_slot(items.target_dsn, back, deadline_s=PATIENCE_S) as slot:
            await start_progress(items.source_dsn, back, 1, slot.pin.consistent_point)
        route = msgspec.structs.replace(items.route, source_schema=NEW, target_schema=OLD)
        there = replaying(Source(items.target_dsn, slot.pin, back), Target(items.source_dsn, back, 1), route, options)
        async with items.replay(options) as forth, there as home:
            await items.source.execute("UPDATE item SET name = 'forth' WHERE id = 1")
            await items.settle(forth)
            await items.target.execute("UPDATE t_new.item SET name = 'back' WHERE id = 2")
            await items.settle(home)
            await items.settle(forth)
            assert forth.status().applier.changes == 1
            assert home.status().applier.changes == 1
            assert home.status().transactions == (1 if at_the_source else 2)
        await items.assert_equal()
    finally:
        await drop_slot(items.target_dsn, back)
        await drop_origin(items.source_dsn, back)


async def test_a_severed_stream_is_named_and_the_replay_starts_again(items: Crossing) -> None:
    async with items.replay() as replay:
        state = await slot_state(items.source_dsn, items.name)
        assert state is not None
        await items.source.execute("SELECT pg_terminate_backend($1)", state.active_pid)
        with pytest.raises(Exception, match="stream") as caught:
            await replay.failed()
        assert getattr(caught.value, "try_again", False)
    await items.source.execute("INSERT INTO item VALUES ($1, 64)", items.tenant)
    await items.catch_up()
    await items.assert_equal()
    assert not isinstance(caught.value, psycopg.Error)
