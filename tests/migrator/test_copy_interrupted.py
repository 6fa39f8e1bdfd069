"""What ends a copy early is never taken for its end, and nothing is left of it but rows to delete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from strata.migrator import copier, ranges
from strata.migrator.copier import Copier, CopyInterruptedError, RowsLostError
from strata.migrator.copy_sessions import Warrant
from strata.migrator.tables import Home
from strata.migrator.target import Target
from strata.platform.database.administration import administrator
from strata.platform.database.names import quoted
from tests.builders.copying import TENANT, Homes, Wire, fill_goods, homes
from tests.servers import PostgresServer

ROWS = 60_000
NAME = "strata-move-interrupted"
LIMITS = ("statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout", "idle_session_timeout")
# 60,000 rows are some 3 MB on the wire.
MIDDLE_BYTES = 1_500_000


@pytest.fixture
async def goods(postgres_server: PostgresServer, second_postgres_server: PostgresServer) -> AsyncIterator[Homes]:
    async with homes(postgres_server, second_postgres_server) as made:
        await fill_goods(made.at_source, ROWS, tenants=[TENANT])
        await Target(made.target).strip()
        yield made


async def sessions(*connections: asyncpg.Connection) -> int:
    """Of the copier's, waiting for those that are just ending."""
    count = 1
    for _ in range(100):
        found = [
            await each.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", NAME)
            for each in connections
        ]
        count = sum(found)
        if not count:
            break
        await asyncio.sleep(0.05)
    return count


async def run(
    goods: Homes,
    *,
    source: Home | None = None,
    target: Home | None = None,
    warrant: Warrant | None = None,
    **options: object,
) -> copier.Copied:
    async with goods.snapshot() as snapshot, goods.origins(2) as origins:
        return await Copier(
            source or goods.source,
            target or goods.target,
            await goods.tables(),
            snapshot=snapshot,
            origins=origins,
            warrant=warrant or Warrant(NAME),
            **options,  # type: ignore[arg-type]
        ).run()


@pytest.mark.parametrize("side", ["source", "target"])
async def test_a_wire_cut_in_mid_range_is_an_error_and_a_copy_from_the_start_mends_it(
    goods: Homes, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "FIRST_ROWS", 50_000)
    # The source says rows; the target says next to nothing, so it is cut at its first answers.
    wire = Wire(goods.source, cut_after=MIDDLE_BYTES) if side == "source" else Wire(goods.target, cut_after=1_500)
    async with wire.home() as home:
        with pytest.raises(CopyInterruptedError):
            await (run(goods, source=home) if side == "source" else run(goods, target=home))
    assert await goods.at_target.fetchval("SELECT count(*) FROM goods") < ROWS
    await Target(goods.target).empty()
    assert (await goods.copy()).rows == {"goods": ROWS}
    assert await goods.rows(goods.target, "goods") == await goods.rows(goods.source, "goods")


async def test_a_peer_that_falls_silent_is_taken_for_gone(goods: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copier, "STALLED_S", 0.3)
    monkeypatch.setattr(ranges, "FIRST_ROWS", 50_000)
    async with Wire(goods.source, silent_after=MIDDLE_BYTES).home() as home:
        with pytest.raises(CopyInterruptedError):
            await run(goods, source=home)


@pytest.mark.parametrize("side", ["source", "target"])
async def test_a_back_end_that_is_ended_between_ranges(goods: Homes, side: str) -> None:
    connection = goods.at_source if side == "source" else goods.at_target
    killed: list[int] = []

    async def kill(worker: int) -> None:
        if worker == 1 and not killed:
            killed.append(worker)
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", NAME
            )

    with pytest.raises(CopyInterruptedError):
        await run(goods, throttle=kill)
    assert killed


async def test_a_snapshot_whose_session_has_gone_is_named_and_nothing_is_copied(goods: Homes) -> None:
    async with goods.snapshot() as snapshot:
        pass
    async with goods.origins(1) as origins:
        with pytest.raises(CopyInterruptedError):
            await Copier(goods.source, goods.target, await goods.tables(), snapshot=snapshot, origins=origins).run()
    assert await Target(goods.target).is_empty()


async def test_the_exporting_session_may_end_once_every_worker_holds_the_snapshot(goods: Homes) -> None:
    async with AsyncExitStack() as stack, goods.origins(2) as origins:
        snapshot = await stack.enter_async_context(goods.snapshot())
        tables = await goods.tables()
        copier_ = Copier(goods.source, goods.target, tables, snapshot=snapshot, origins=origins)

        async def end(_worker: int) -> None:
            assert copier_.started.is_set()
            await stack.aclose()

        copier_._throttle = end
        assert (await copier_.run()).rows == {"goods": ROWS}


async def test_limits_that_somebody_set_for_requests_end_no_copy(goods: Homes) -> None:
    """Between ranges both ends wait for longer than they allow; in one, the target's statement lasts longer."""
    for home, connection in ((goods.source, goods.at_source), (goods.target, goods.at_target)):
        for name in LIMITS:
            await connection.execute(f"ALTER DATABASE {quoted(home.cell)} SET {name} = '150ms'")
    waited = 0

    async def slow(_worker: int) -> None:
        nonlocal waited
        waited += 1
        if waited < 4:
            await asyncio.sleep(0.4)

    async with administrator(goods.source.url) as limited:
        assert await limited.fetchval("SHOW statement_timeout") == "150ms"
    # at_source was connected before the limits were set, as the session of a slot is held without any.
    async with (
        goods.origins(2) as origins,
        goods.at_source.transaction(isolation="repeatable_read"),
        Wire(goods.source, pause_after=300_000, pause_s=0.5).home() as source,
    ):
        snapshot = await goods.at_source.fetchval("SELECT pg_export_snapshot()")
        tables = await goods.tables()
        copied = await Copier(source, goods.target, tables, snapshot=snapshot, origins=origins, throttle=slow).run()
    assert copied.rows == {"goods": ROWS}


async def test_cancelled_it_leaves_no_session_and_no_half_range(goods: Homes) -> None:
    reached = asyncio.Event()

    async def wait(worker: int) -> None:
        if worker == 1:
            reached.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run(goods, throttle=wait))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await sessions(goods.at_source, goods.at_target) == 0
    assert await goods.at_target.fetchval("SELECT count(*) FROM pg_locks WHERE relation = 'goods'::regclass") == 0


async def test_fewer_rows_than_were_sent_are_noticed(goods: Homes) -> None:
    """A trigger that fires even for replicated rows and swallows some; preflight refuses it, this is the second look."""
    await goods.at_target.execute(
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER swallow BEFORE INSERT ON goods FOR EACH ROW WHEN (NEW.id = 77) EXECUTE FUNCTION swallow();"
        "ALTER TABLE goods ENABLE ALWAYS TRIGGER swallow"
    )
    with pytest.raises(RowsLostError) as lost:
        await run(goods)
    assert lost.value.table == "goods"


async def test_nothing_of_a_range_that_failed_is_kept(goods: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "FIRST_ROWS", 50_000)
    await goods.at_target.execute("ALTER TABLE goods ADD CHECK (id <> 40000)")
    with pytest.raises(copier.RowsRefusedError):
        await run(goods)
    kept = await goods.at_target.fetchval("SELECT count(*) FROM goods")
    assert kept in {0, ROWS - 50_000}
