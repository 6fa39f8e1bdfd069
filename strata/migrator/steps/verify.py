"""verifying: compare every row on both sides, at one and the same moment of the source, while it is being written to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

import msgspec

from strata.migrator.copy_sessions import Warrant
from strata.migrator.errors import VerificationError
from strata.migrator.faults import reached
from strata.migrator.models import ObjectKind, Side
from strata.migrator.objects import MoveObject
from strata.migrator.phases import Phase
from strata.migrator.slots import exported_slot
from strata.migrator.streams import Direction, stream_name
from strata.migrator.throttle import limits_of, throttling
from strata.migrator.transitions import Advance
from strata.migrator.verifier import Comparison, Verifier

if TYPE_CHECKING:
    from strata.migrator.copy_sessions import Rest
    from strata.migrator.moves import Move
    from strata.migrator.replay import Replay
    from strata.migrator.throttle import Pace
    from strata.migrator.work import Surroundings, Work

_NAMED = 100
_LOOKS = 4
_BETWEEN_LOOKS_S = 0.5
_TELL_EVERY_S = 0.5


class Verify:
    phase: ClassVar = Phase.VERIFYING
    rerunnable: ClassVar = True

    async def check(self, work: Work) -> None:
        """Nothing but the comparison itself."""

    async def run(self, work: Work) -> Advance:
        comparison = await compare(work, Direction.OUT)
        refuse_differences(comparison)
        detail = {"rows": comparison.rows, "tables": len(comparison.tables), "seconds": round(comparison.seconds, 3)}
        await work.note(verified=detail)
        return Advance(Phase.READY, "verified", detail=detail)

    async def compensate(self, work: Work) -> None:
        """The temporary slot and the snapshots have ended with their sessions; what was copied is not trusted any more."""
        await work.let_streams_go()


async def compare(work: Work, direction: Direction) -> Comparison:
    """Halt, then a slot whose snapshot is the line, then apply exactly up to it: migrator protocol, step 4."""
    origin, destination = work.streams.ends_of(direction)
    replay = await work.streams.replay(work.move, direction)
    name = f"{stream_name(work.move, direction)}_verify"
    side = Side.SOURCE if direction is Direction.OUT else Side.TARGET
    slot_object = MoveObject(side, ObjectKind.SLOT, name)
    await work.around.objects.register(work.move, slot_object)
    async with (
        throttling([origin.home, destination.home], 1, limits_of(work.settings), destination.warrant) as throttle,
        _telling(work, throttle.pace),
    ):
        comparison = await _compared(work, direction, name, replay, throttle.pace.rest_s)
    await work.note(throttled=None)
    await work.around.objects.forget(work.move.id, slot_object)
    return comparison


@asynccontextmanager
async def _telling(work: Work, pace: Pace) -> AsyncIterator[None]:
    """What holds the comparison back is shown during the block."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(_TELL_EVERY_S)
            if pace.pressure != work.move.progress.get("throttled"):
                await work.note(throttled=pace.pressure)

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait({telling})


async def _compared(work: Work, direction: Direction, slot_name: str, replay: Replay, rest: Rest) -> Comparison:
    origin, destination = work.streams.ends_of(direction)
    await replay.halt()
    try:
        async with exported_slot(
            origin.dsn, slot_name, deadline_s=work.settings.slot_deadline_s, temporary=True
        ) as slot:
            await reached("verifying.slot")
            async with replay.target_snapshot_at(slot.pin.consistent_point) as snapshot:
                verifier = Verifier(origin.home, destination.home, warrant=destination.warrant, rest=rest)
                comparing = asyncio.create_task(verifier.compare(slot.snapshot_name, snapshot))
                await _either(comparing, verifier.started)
    finally:
        replay.go()
    try:
        # From here on changes are applied again: both sides are compared as they were.
        return await comparing
    finally:
        comparing.cancel()
        await asyncio.wait({comparing})


async def _either(comparing: asyncio.Task[Comparison], started: asyncio.Event) -> None:
    """Until both sides stand in their snapshots, or the comparison has failed before."""
    standing = asyncio.create_task(started.wait())
    try:
        await asyncio.wait({comparing, standing}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        comparing.cancel()
        raise
    finally:
        standing.cancel()


async def compare_by_itself(around: Surroundings, move: Move) -> Comparison:
    """Both homes as they are, each in a snapshot of its own: for a person who asks, while a worker has the streams.

    What is written meanwhile is on its way and looks different once; a difference is what is there every time.
    """
    source, target = await around.sites.source(move), await around.sites.target(move)
    verifier = Verifier(source.home, target.home, warrant=Warrant("strata-verify"))
    comparison = await verifier.compare(None, None)
    for _ in range(_LOOKS - 1):
        if comparison.equal:
            break
        await asyncio.sleep(_BETWEEN_LOOKS_S)
        again = await verifier.compare(None, None)
        lasting = tuple(each for each in again.differences if each in comparison.differences)
        tables = again.tables if lasting else tuple(msgspec.structs.replace(t, differing_rows=0) for t in again.tables)
        comparison = msgspec.structs.replace(again, differences=lasting, tables=tables)
    return comparison


def refuse_differences(comparison: Comparison) -> None:
    if comparison.equal:
        return
    named = [msgspec.to_builtins(each) for each in comparison.differences[:_NAMED]]
    raise VerificationError(sum(table.differing_rows for table in comparison.tables) or len(named), named)
