"""copying: publication, slot with its snapshot, every row in that snapshot, then indexes and constraints.

A copy that was interrupted is not resumed: a second snapshot would not fit the slot (unique values swapped between the
two, a key update into a finished range). It starts again, under the next number.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, ClassVar

from strata.migrator.copier import Copier, Progress
from strata.migrator.faults import reached
from strata.migrator.indexes import build
from strata.migrator.models import ObjectKind, Side
from strata.migrator.objects import MoveObject
from strata.migrator.origins import drop_origin
from strata.migrator.phases import Phase
from strata.migrator.progress import start_progress
from strata.migrator.streams import Direction, stream_name
from strata.migrator.target import Target
from strata.migrator.throttle import limits_of, throttling
from strata.migrator.transitions import Advance
from strata.platform.errors import ConflictError

if TYPE_CHECKING:
    from strata.migrator.copier import Copied
    from strata.migrator.tables import TenantTables
    from strata.migrator.throttle import Pace
    from strata.migrator.work import Work

_TELL_EVERY_S = 0.5
_MOST_COPIES = 20


class Copy:
    phase: ClassVar = Phase.COPYING
    rerunnable: ClassVar = True

    async def check(self, work: Work) -> None:
        if work.copies >= _MOST_COPIES:
            message = f"The copy was begun {work.copies} times and none was whole: the events of the move say why."
            raise CopyGivenUpError(message)

    async def run(self, work: Work) -> Advance:
        if work.move.number:
            await self.compensate(work)
        await work.next_copy()
        name = stream_name(work.move, Direction.OUT)
        tables = await work.streams.tables(Direction.OUT)
        await work.streams.publish(work.move, Direction.OUT, tables)
        await reached("copying.published")
        async with work.streams.slot(work.move, Direction.OUT, work.settings.slot_deadline_s) as slot:
            await reached("copying.slot")
            copied, pace = await self._copy(work, tables, slot.snapshot_name)
            # A connection that was lost reads like an end: the copy counts only if its snapshot was there throughout.
            await slot.check_alive()
        await work.streams.pin(work.move, Direction.OUT, slot.pin)
        end = work.target
        await start_progress(end.dsn, name, end.attempt, slot.pin.consistent_point, end.reign)
        await reached("copying.copied")
        built = await build(work.target.home, tables, workers=pace.lanes, warrant=work.target.warrant)
        detail = {
            "rows": sum(copied.rows.values()),
            "bytes": copied.size_bytes,
            "seconds": round(copied.seconds, 3),
            "indexes_seconds": round(built.seconds, 3),
            "tables": copied.rows,
            "held_back": pace.held_back,
        }
        return Advance(Phase.CATCHING_UP, "copied", detail=detail)

    async def _copy(self, work: Work, tables: TenantTables, snapshot: str) -> tuple[Copied, Pace]:
        origins = [f"{stream_name(work.move, Direction.OUT)}_{lane}" for lane in range(work.settings.copy_workers)]
        await work.around.objects.register(
            work.move, *(MoveObject(Side.TARGET, ObjectKind.ORIGIN, origin) for origin in origins)
        )
        seen: dict[str, dict[str, Any]] = {}
        begun = time.monotonic()

        def see(progress: Progress) -> None:
            seen[progress.table] = {
                "rows": progress.rows,
                "bytes": progress.size_bytes,
                "of": max(progress.estimated_rows, progress.rows),
                "done": progress.done,
            }

        ends = [work.source.home, work.target.home]
        async with throttling(ends, len(origins), limits_of(work.settings), work.target.warrant) as throttle:
            copier = Copier(
                work.source.home,
                work.target.home,
                tables,
                snapshot=snapshot,
                origins=origins,
                warrant=work.target.warrant,
                throttle=throttle,
                rest=throttle.pace.rest_s,
            )
            telling = asyncio.create_task(_tell(work, seen, begun, throttle.pace))
            try:
                copied = await copier.run(see)
            finally:
                telling.cancel()
                await asyncio.wait({telling})
        await work.note(**_told(seen, begun), throttled=None)
        for origin in origins:
            await drop_origin(work.target.dsn, origin, work.target.reign)
            await work.around.objects.forget(work.move.id, MoveObject(Side.TARGET, ObjectKind.ORIGIN, origin))
        return copied, throttle.pace

    async def compensate(self, work: Work) -> None:
        """Drop the slot first: it makes the source keep its log. Then the target is made empty, for the next copy."""
        await work.streams.close_all()
        await work.around.objects.drop_streams(work.move.id, work.ends)
        await Target(work.target.home, work.target.warrant).empty()
        if work.target.home.exclusive:
            await Target(work.target.home, work.target.warrant).strip()


class CopyGivenUpError(ConflictError):
    code = "copy-given-up"
    title = "The copy does not succeed"


async def _tell(work: Work, seen: dict[str, dict[str, Any]], begun: float, pace: Pace) -> None:
    while True:
        await asyncio.sleep(_TELL_EVERY_S)
        await work.note(**_told(seen, begun), throttled=pace.pressure)


def _told(seen: dict[str, dict[str, Any]], begun: float) -> dict[str, Any]:
    rows, of = (sum(table[what] for table in seen.values()) for what in ("rows", "of"))
    seconds = time.monotonic() - begun
    rate = rows / seconds if seconds else 0.0
    return {
        "tables": dict(seen),
        "rows": rows,
        "bytes": sum(table["bytes"] for table in seen.values()),
        "rows_per_s": round(rate),
        "eta_s": round((of - rows) / rate) if rate else None,
    }
