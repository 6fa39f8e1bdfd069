"""What Prometheus is told of moves and streams, also while no worker, server or catalog answers."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from strata.app import create_app
from strata.migrator.moves import Move
from strata.migrator.phases import Phase, Wish
from strata.migrator.watching import MoveWatch
from strata.migrator.waves.desk import Pace, WaveOrder, WaveWish
from strata.platform.database import addresses
from strata.tenancy.model import Tier
from tests.builders.http import client_of
from tests.builders.moving import Movers
from tests.builders.platform import ACTOR, FIRST_CELL, FIRST_SERVER, SECOND_CELL, SECOND_SERVER, Tenantry, admin_of

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
pytestmark = pytest.mark.timeout(300, func_only=True)
ORPHAN = "strata_000000000000_out_0"


def series(text: str) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Series, name: str, **labels: str) -> float | None:
    """Of the one series of that name that has these labels among its own."""
    values = [each for (called, has), each in found.items() if called == name and labels.items() <= dict(has).items()]
    assert len(values) <= 1, values
    return values[0] if values else None


async def looked(movers: Movers) -> Series:
    """What a look finds that the catalog answered in time, however busy the machine is."""
    runtime = movers.runtime
    while True:
        watch = MoveWatch(runtime.catalog_engine, runtime.registry, runtime.settings.migrator)
        found = series((await watch.exposition()).decode())
        if value(found, "strata_catalog_up") == 1:
            return found


async def _write_block(movers: Movers, move: Move) -> float:
    """Told when the tenant has been let in, a moment after the flip. Milliseconds."""
    async with asyncio.timeout(240):
        while move.write_block_ms is None:
            await asyncio.sleep(0.02)
            move = await movers.desk.moves.get(move.id)
    return move.write_block_ms


async def test_a_move_is_told_from_its_beginning_to_its_end(movers: Movers, mover_tenant: Tenantry) -> None:
    context = await mover_tenant(Tier.SHARED)
    move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL, retention_s=3600)
    about = {"move": str(move.id), "tenant": context.slug}
    found = await looked(movers)
    assert value(found, "strata_move_phase_seconds", **about, phase="pending") is not None
    assert (value(found, "strata_moves_unattended") or 0) >= 1
    async with movers.working(move):
        await movers.told(move, "flipped", within_s=240)
        block_ms = await _write_block(movers, await movers.until(move, Phase.RETAINING, within_s=240))
        async with client_of(create_app(movers.runtime), "anything.localhost") as client:
            scraped = series((await client.get("/metrics")).text)
        assert value(scraped, "strata_catalog_up") is not None
        found = await looked(movers)
        assert value(found, "strata_move_phase_seconds", **about, phase="retaining") is not None
        assert (value(found, "strata_moves", phase="retaining") or 0) >= 1
        left = value(found, "strata_move_retention_left_seconds", **about)
        age = value(found, "strata_move_retention_age_seconds", **about)
        assert left is not None
        assert age is not None
        assert abs(left + age - 3600) < 1
        back = {"server": SECOND_SERVER, **about}
        assert value(found, "strata_slot_active", **back) == 1
        assert value(found, "strata_slot_kept_bytes", **back) is not None
        assert value(found, "strata_slot_lag_bytes", **back) is not None
        assert value(found, "strata_slot_lost", **back) == 0
        assert (value(found, "strata_move_write_block_ms_count") or 0) >= 1
        assert (value(found, "strata_move_write_block_ms_sum") or 0) >= block_ms - 0.01
    # No worker has it any more: the slot goes on keeping log, and both are told.
    async with asyncio.timeout(240):
        # The server hears a moment later that its reader has gone.
        while True:
            found = await looked(movers)
            if value(found, "strata_slot_active", **back) == 0:
                break
            await asyncio.sleep(0.1)
    assert (value(found, "strata_moves_unattended") or 0) >= 1
    await movers.desk.ask(move.id, Wish.COMPLETE, ACTOR)
    assert (await movers.work(move)).phase is Phase.COMPLETED
    found = await looked(movers)
    assert [each for each, _ in found if dict(_).get("move") == str(move.id)] == []


async def test_a_slot_that_no_move_knows_is_an_orphan(movers: Movers) -> None:
    async with admin_of(movers.runtime, FIRST_CELL) as admin:
        await admin.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", ORPHAN)
        try:
            found = await looked(movers)
            assert value(found, "strata_slot_orphaned", server=FIRST_SERVER, slot=ORPHAN) == 1
            assert value(found, "strata_slot_kept_bytes", server=FIRST_SERVER, slot=ORPHAN, tenant="") is not None
        finally:
            await admin.execute("SELECT pg_drop_replication_slot($1)", ORPHAN)
    assert value(await looked(movers), "strata_slot_orphaned", slot=ORPHAN) is None


async def test_waves_that_have_not_ended_are_told(movers: Movers, mover_tenant: Tenantry) -> None:
    context = await mover_tenant(Tier.SHARED)
    desk = movers.runtime.waves
    wave = await desk.start(WaveOrder(Tier.SHARED, tenants=(context.slug,), cell=SECOND_CELL, pace=Pace()), ACTOR)
    await desk.ask(wave.id, WaveWish.PAUSE, ACTOR)
    found = await looked(movers)
    assert value(found, "strata_wave_state", wave=str(wave.id), state="paused") == 1
    assert value(found, "strata_wave_state", wave=str(wave.id), state="stopped") == 0
    assert value(found, "strata_wave_tenants", wave=str(wave.id), outcome="waiting") == 1
    await desk.ask(wave.id, WaveWish.CANCEL, ACTOR)
    assert value(await looked(movers), "strata_wave_state", wave=str(wave.id), state="paused") is None


async def test_a_server_that_is_away_is_told_and_keeps_nothing_else_back(movers: Movers) -> None:
    runtime = movers.runtime
    nobody = addresses.parse("postgresql://nobody:nothing@127.0.0.1:1/postgres")
    await runtime.registry.add_server("away", nobody, "nowhere", "nobody", "nothing", None, ACTOR, capacity=0)
    try:
        found = await looked(movers)
    finally:
        async with runtime.catalog_engine.begin() as catalog:
            await catalog.execute(text("DELETE FROM server WHERE name = 'away'"))
    assert value(found, "strata_server_up", server="away") == 0
    assert value(found, "strata_server_up", server=SECOND_SERVER) == 1
    assert value(found, "strata_catalog_up") == 1


async def test_a_catalog_that_says_nothing_does_not_hang_the_scrape(movers: Movers) -> None:
    """Somebody listens at its address and never answers."""
    silence = asyncio.Event()
    asked = 0

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await silence.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = addresses.for_asyncpg(addresses.parse(f"postgresql://nobody:nothing@127.0.0.1:{port}/nowhere"))
    engine = create_async_engine(url)
    try:
        watch = MoveWatch(engine, movers.runtime.registry, movers.runtime.settings.migrator)
        found = series((await watch.exposition()).decode())
        assert found == {("strata_catalog_up", frozenset()): 0}
        assert asked == 1
        # Asked again at once, it does not look again: scrapes of several collectors do not add up.
        await asyncio.gather(*(watch.exposition() for _ in range(20)))
        assert asked == 1
    finally:
        silence.set()
        server.close()
        await engine.dispose()
