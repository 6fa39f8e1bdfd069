"""Making, pinning and dropping slots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from strata.migrator.replication_errors import SlotBlockedError, SnapshotLostError
from strata.migrator.slots import drop_slot, exported_slot, slot_state
from tests.builders.streams import Crossing, crossing
from tests.servers import PostgresServer

ITEM = "CREATE TABLE item (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id))"


@pytest.fixture
async def items(postgres_server: PostgresServer, second_postgres_server: PostgresServer) -> AsyncIterator[Crossing]:
    async with crossing((postgres_server, second_postgres_server), ITEM, "item") as made:
        yield made


async def test_a_writer_in_another_database_is_named_after_the_deadline(
    items: Crossing, postgres_server: PostgresServer
) -> None:
    writer = await asyncpg.connect(postgres_server.admin_dsn, server_settings={"application_name": "forgotten report"})
    name = f"{items.name}_blocked"
    async with writer.transaction():
        await writer.execute("SELECT pg_current_xact_id()")
        with pytest.raises(SlotBlockedError, match="forgotten report") as caught:
            async with exported_slot(items.source_dsn, name, deadline_s=0.5):
                pass
        assert writer.get_server_pid() in {blocker.pid for blocker in caught.value.blockers}
        assert {blocker.database for blocker in caught.value.blockers} == {"postgres"}
        assert await slot_state(items.source_dsn, name) is None
    await writer.close()


async def test_a_cancelled_creation_leaves_nothing(items: Crossing, postgres_server: PostgresServer) -> None:
    writer = await asyncpg.connect(postgres_server.admin_dsn)
    name = f"{items.name}_cancelled"
    async with writer.transaction():
        await writer.execute("SELECT pg_current_xact_id()")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), exported_slot(items.source_dsn, name, deadline_s=60):
                pass
        assert await slot_state(items.source_dsn, name) is None
    await writer.close()


async def test_an_orphan_that_still_waits_is_ended_and_dropped(
    items: Crossing, postgres_server: PostgresServer
) -> None:
    """Its client has died; its walsender does not look, and would finish the slot for nobody."""
    writer = await asyncpg.connect(postgres_server.admin_dsn)
    name = f"{items.name}_orphan"
    async with writer.transaction():
        await writer.execute("SELECT pg_current_xact_id()")
        process = await asyncio.create_subprocess_exec(
            "psql",
            items.source_dsn + "?replication=database",
            "-c",
            f'CREATE_REPLICATION_SLOT "{name}" LOGICAL pgoutput',
            stderr=asyncio.subprocess.DEVNULL,
        )
        while (state := await slot_state(items.source_dsn, name)) is None or state.active_pid is None:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
        process.kill()
        await process.wait()
        assert await slot_state(items.source_dsn, name) is not None
        await drop_slot(items.source_dsn, name)
        assert await slot_state(items.source_dsn, name) is None
    await writer.close()
    await drop_slot(items.source_dsn, name)


async def test_a_slot_in_use_is_dropped_all_the_same(items: Crossing) -> None:
    async with items.replay() as replay:
        await drop_slot(items.source_dsn, items.name)
        with pytest.raises(Exception, match="stream"):
            await replay.failed()


async def test_the_snapshot_shows_what_the_slot_will_not_send(items: Crossing) -> None:
    await items.source.execute("INSERT INTO item VALUES ($1, 1)", items.tenant)
    async with exported_slot(items.source_dsn, f"{items.name}_t", deadline_s=20, temporary=True) as slot:
        await items.source.execute("INSERT INTO item VALUES ($1, 2)", items.tenant)
        reader = await asyncpg.connect(items.source_dsn)
        async with reader.transaction(isolation="repeatable_read", readonly=True):
            await reader.execute(f"SET TRANSACTION SNAPSHOT '{slot.snapshot_name}'")
            assert await reader.fetchval('SELECT count(*) FROM "old home".item') == 1
        await reader.close()
        await slot.check_alive()
    assert await slot_state(items.source_dsn, f"{items.name}_t") is None


async def test_session_time_outs_do_not_end_the_snapshot(items: Crossing) -> None:
    await items.source.execute(
        f"ALTER DATABASE {items.name} SET idle_in_transaction_session_timeout = '200ms';"
        f"ALTER DATABASE {items.name} SET transaction_timeout = '200ms'"
    )
    async with exported_slot(items.source_dsn, f"{items.name}_t", deadline_s=20, temporary=True) as slot:
        await asyncio.sleep(0.6)
        await slot.check_alive()


async def test_a_lost_snapshot_is_noticed(items: Crossing) -> None:
    async with exported_slot(items.source_dsn, f"{items.name}_t", deadline_s=20, temporary=True) as slot:
        state = await slot_state(items.source_dsn, slot.pin.name)
        assert state is not None
        await items.source.execute("SELECT pg_terminate_backend($1, 5000)", state.active_pid)
        with pytest.raises(SnapshotLostError):
            await slot.check_alive()
