"""Moves at random, under load, with faults at random; every acknowledged write is there exactly once at the end.

STRATA_TEST_MOVES_SEED chooses another run (the report names the one that was made), STRATA_TEST_MOVES how many moves.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum

import msgspec
import pytest

from strata.migrator.moves import Move
from strata.migrator.phases import Phase, Wish
from strata.platform.errors import StrataError
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.forked import Forked
from tests.builders.move_worker import has_stopped, move_worker, wake
from tests.builders.moving import Movers, Neighbour
from tests.builders.platform import (
    ACTOR,
    FIRST_CELL,
    FIRST_SERVER,
    SECOND_CELL,
    SECOND_SERVER,
    Platform,
    Tenantry,
    admin_of,
)
from tests.builders.site import Site
from tests.builders.traffic import assert_kept, traffic
from tests.migrator.test_deaths import EVERY_POINT

SEED = int(os.environ.get("STRATA_TEST_MOVES_SEED", "20261122"))
MOVES = int(os.environ.get("STRATA_TEST_MOVES", "50"))
ENDS_WITHIN_S = 900.0
_FAULT_WITHIN_S = 30.0
_ASLEEP_S = 3.0


class Fault(StrEnum):
    NONE = "none"
    KILL = "worker killed"
    STOP = "worker asleep"
    SEVER_SOURCE = "source's connections severed"
    SEVER_TARGET = "target's connections severed"


class Ending(StrEnum):
    COMPLETE = "completed"
    ROLL_BACK = "rolled back"
    CANCEL = "cancelled"


class Draw(msgspec.Struct, frozen=True):
    """One move of the plan: drawn before anything happens, so that a seed means the same however things go."""

    to: Tier
    where: str
    fault: Fault
    point: str
    after_s: float
    ending: Ending


class Made(msgspec.Struct, frozen=True):
    number: int
    draw: Draw
    source: str
    phase: Phase
    attempts: int
    seconds: float
    block_ms: float | None


def plan(seed: int, moves: int) -> list[Draw]:
    chance = random.Random(seed)
    drawn = []
    for _ in range(moves):
        to = chance.choice(list(Tier))
        where = chance.choice([FIRST_SERVER, SECOND_SERVER] if to is Tier.DEDICATED else [FIRST_CELL, SECOND_CELL])
        drawn.append(
            Draw(
                to,
                where,
                chance.choice(list(Fault)),
                chance.choice(EVERY_POINT),
                round(chance.uniform(0.2, 3.0), 2),
                chance.choices(list(Ending), [6, 3, 1])[0],
            )
        )
    return drawn


def test_a_seed_is_a_plan() -> None:
    assert plan(7, 20) == plan(7, 20) != plan(8, 20)


@pytest.mark.slow
@pytest.mark.timeout(10_800)
async def test_random_moves(
    movers: Movers,
    moving_platform: Platform,
    mover_tenant: Tenantry,
    moving_site: Site,
    neighbour: Neighbour,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def say(line: str) -> None:
        """To the terminal, also when all goes well."""
        with capfd.disabled():
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    say(f"\nSeed {SEED}, {MOVES} moves")
    made: list[Made] = []
    context = await mover_tenant(Tier.SHARED)
    try:
        async with traffic(moving_site, context, writers=3, seed=SEED) as ledger:
            for number, draw in enumerate(plan(SEED, MOVES), 1):
                now = await movers.runtime.contexts.fresh(context.id)
                moved = await _move(movers, moving_platform, now, number, draw)
                if moved is None:
                    say(f"{number:3}  {draw.to} at {draw.where}: it lives there")
                else:
                    made.append(moved)
                    say(_line(moved))
        await assert_kept(movers.runtime, context, ledger)
        await neighbour.assert_untouched()
    finally:
        for line in _report(made):
            say(line)
    now = await movers.runtime.contexts.fresh(context.id)
    assert await movers.homes_of(context) == {now.placement.cell: [now.placement.schema_name]}
    for move in await movers.desk.moves.newest(slug=context.slug, unfinished=False, limit=MOVES * 2):
        assert await movers.remains(move.id) == {}
    say(f"{len(ledger.entries):,} writes acknowledged, {ledger.reads:,} reads, slowest {ledger.slowest_ms:.0f} ms")


async def _move(movers: Movers, platform: Platform, context: TenantContext, number: int, draw: Draw) -> Made | None:
    begun = time.monotonic()
    dedicated = draw.to is Tier.DEDICATED
    try:
        move = await movers.start(
            context,
            draw.to,
            cell=None if dedicated else draw.where,
            server=draw.where if dedicated else None,
            retention_s=0 if draw.ending is Ending.COMPLETE else 3600,
        )
    except StrataError:
        assert context.placement.tier is draw.to, "refused, though it lives elsewhere"
        return None
    async with _disturbed(movers, platform, move, draw):
        ended = await _ended(movers, move, draw)
    assert await movers.remains(move.id) == {}
    seconds = round(time.monotonic() - begun, 1)
    return Made(
        number, draw, str(move.source), ended.phase, ended.attempt - move.attempt, seconds, ended.write_block_ms
    )


@asynccontextmanager
async def _disturbed(movers: Movers, platform: Platform, move: Move, draw: Draw) -> AsyncIterator[None]:
    """A worker to which the fault happens first, where it is one of the worker's; then one that goes on, for the block."""
    if draw.fault not in {Fault.KILL, Fault.STOP}:
        async with movers.keeping(), _severing(movers, move, draw):
            yield
        return
    action = "kill" if draw.fault is Fault.KILL else "stop"
    async with move_worker(platform, faults=f"{draw.point}={action}", tenant=move.tenant_id) as worker:
        with suppress(TimeoutError):
            # A point that this move does not come to (it is retained, say) is a fault that does not happen.
            async with asyncio.timeout(_FAULT_WITHIN_S):
                await _struck(movers, move, worker, draw)
        async with movers.keeping():
            waking = asyncio.create_task(_wake_later(worker))
            try:
                yield
            finally:
                waking.cancel()


async def _struck(movers: Movers, move: Move, worker: Forked, draw: Draw) -> None:
    """Return when the fault has happened, or can happen no more."""
    happened = asyncio.create_task(_killed(worker) if draw.fault is Fault.KILL else has_stopped(worker))
    rested = asyncio.create_task(_rested(movers, move))
    try:
        await asyncio.wait({happened, rested}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (happened, rested):
            task.cancel()
        await asyncio.gather(happened, rested, return_exceptions=True)


async def _killed(worker: Forked) -> None:
    assert await worker.wait() == -signal.SIGKILL


async def _rested(movers: Movers, move: Move) -> None:
    while True:
        now = await movers.desk.moves.get(move.id)
        if now.finished or now.phase in {Phase.RETAINING, Phase.FAILED}:
            return
        await asyncio.sleep(0.1)


async def _wake_later(worker: Forked) -> None:
    await asyncio.sleep(_ASLEEP_S)
    if worker.returncode is None:
        wake(worker)


@asynccontextmanager
async def _severing(movers: Movers, move: Move, draw: Draw) -> AsyncIterator[None]:
    async def sever() -> None:
        await asyncio.sleep(draw.after_s)
        cell = move.source.cell if draw.fault is Fault.SEVER_SOURCE else move.target.cell
        with suppress(StrataError):  # a dedicated cell that is not there yet, or not any more
            async with admin_of(movers.runtime, cell) as admin:
                # The move's own sessions alone: a request whose connection breaks has failed, and says so.
                await admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE $1",
                    f"strata-move-{move.tenant_id.hex}%",
                )

    if draw.fault is Fault.NONE:
        yield
        return
    severing = asyncio.create_task(sever())
    try:
        yield
    finally:
        severing.cancel()
        await asyncio.gather(severing, return_exceptions=True)


async def _ended(movers: Movers, move: Move, draw: Draw) -> Move:
    match draw.ending:
        case Ending.COMPLETE:
            return await movers.until(move, Phase.COMPLETED, ENDS_WITHIN_S)
        case Ending.ROLL_BACK:
            await movers.until(move, Phase.RETAINING, ENDS_WITHIN_S)
            await movers.desk.ask(move.id, Wish.ROLL_BACK, ACTOR)
            return await movers.until(move, Phase.ROLLED_BACK, ENDS_WITHIN_S)
        case Ending.CANCEL:
            try:
                await movers.desk.ask(move.id, Wish.CANCEL, ACTOR)
            except StrataError:
                # Too late: it has arrived.
                await movers.desk.ask(move.id, Wish.ROLL_BACK, ACTOR)
                return await movers.until(move, Phase.ROLLED_BACK, ENDS_WITHIN_S)
            return await _cancelled(movers, move)


async def _cancelled(movers: Movers, move: Move) -> Move:
    """The flip may have come before the wish was seen."""
    async with asyncio.timeout(ENDS_WITHIN_S):
        while True:
            now = await movers.desk.moves.get(move.id)
            assert now.phase is not Phase.FAILED, now.failure
            if now.finished:
                return now
            if now.phase is Phase.RETAINING and now.wish is not Wish.ROLL_BACK:
                await movers.desk.ask(move.id, Wish.ROLL_BACK, ACTOR)
            await asyncio.sleep(0.05)


def _line(made: Made) -> str:
    draw = made.draw
    at = f" at {draw.point}" if draw.fault in {Fault.KILL, Fault.STOP} else f" after {draw.after_s} s"
    fault = draw.fault.value + (at if draw.fault is not Fault.NONE else "")
    block = "" if made.block_ms is None else f", write block {made.block_ms:.0f} ms"
    return (
        f"{made.number:3}  {made.source} to {draw.to} at {draw.where}: {made.phase}, {fault},"
        f" {made.attempts} new attempts, {made.seconds} s{block}"
    )


def _report(made: list[Made]) -> Iterator[str]:
    faults = Counter(each.draw.fault.value for each in made)
    phases = Counter(each.phase.value for each in made)
    blocks = sorted(each.block_ms for each in made if each.block_ms is not None)
    yield f"Seed {SEED}: {len(made)} of {MOVES} moves made; {dict(phases)}; faults: {dict(faults)}"
    if blocks:
        yield f"Write block: median {blocks[len(blocks) // 2]:.0f} ms, longest {blocks[-1]:.0f} ms"
