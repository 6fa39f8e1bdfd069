"""Keeps what reads and writes whole tables (copy, comparison) from hurting its neighbours.

It is done in pieces with rests between them (rests.py). How long the rests are, and how many workers there are, follows what the servers at both ends show,
looked at several times a second, outside of any cut-over: how far standbys are behind, how much room slots have left
before the server gives them up, how long a small commit takes beside how long it took before, and how often somebody who
sleeps for a millisecond there is let run late. Under pressure the pace falls by a third at a time, without any it rises
by a tenth, as TCP does it. It never comes to a stop: the snapshot that is held open has its price for the source, too.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import fmean, median
from typing import TYPE_CHECKING

import asyncpg
import msgspec
import structlog

from strata.migrator.copy_sessions import Warrant, probing
from strata.migrator.tables import Home
from strata.platform.database.failures import NO_ANSWER

if TYPE_CHECKING:
    from strata.platform.settings import MigratorSettings

log = structlog.get_logger(__name__)

SLOWEST = 0.1
"""Of one worker's time."""
LOOK_EVERY_S = 0.25
_BASELINE_LOOKS = 3
_RECENT_LOOKS = 4
_NAPS = 8

# A standby is a walsender that reads no logical slot; a base backup is none yet.
_LOOK = """
    SELECT coalesce((SELECT max(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), r.replay_lsn))
                       FROM pg_catalog.pg_stat_replication r
                      WHERE r.state IN ('catchup', 'streaming')
                        AND NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots s
                                         WHERE s.active_pid = r.pid AND s.slot_type = 'logical')), 0)::bigint AS lag,
           (SELECT min(safe_wal_size) FROM pg_catalog.pg_replication_slots) AS room
"""
# As short a commit as there is: it waits for the processor, for the log and, where a tenant's does, for standbys.
_PROBE = "SELECT pg_catalog.pg_logical_emit_message(true, 'strata.probe', '')"
# What a query of a tenant's waits for the processor, by the database's own clock: the loop here is busy copying.
_NAP = "SELECT clock_timestamp() AS since, pg_sleep(0.001), clock_timestamp() AS until FROM generate_series(1, $1::int)"
_LATE_S = 0.002


class Limits(msgspec.Struct, frozen=True):
    standby_lag_bytes: int = 64 * 1024**2
    slot_room_bytes: int = 512 * 1024**2
    slower_times: float = 3.0
    """A commit may take so many times what it took before the copy,"""
    slow_ms: float = 20.0
    """and as long as it takes less than this nobody minds."""
    late_share: float = 0.1
    """So much more often than before the copy somebody may be let run late."""
    share: float = 0.2
    """Of its time that a worker works, without any pressure."""


class Look(msgspec.Struct, frozen=True):
    """What one end shows at one moment."""

    cell: str
    standby_lag_bytes: int
    slot_room_bytes: int | None
    commit_ms: float
    late: float = 0.0
    """Of the naps taken there: how many ended late."""


class Pace:
    """How many workers may go on, the last of them for a part of the time: from SLOWEST of one to all of them."""

    def __init__(self, workers: int, limits: Limits) -> None:
        self._workers = workers
        self._limits = limits
        self._before: dict[str, list[Look]] = {}
        self._lately: dict[str, deque[Look]] = {}
        self.level = float(workers)
        self.pressure: str | None = None
        """What holds the copy back, in a sentence."""
        self.held_back = 0
        """Looks under pressure."""

    @property
    def lanes(self) -> int:
        return max(1, math.ceil(self.level))

    def goes(self, lane: int) -> bool:
        """Whether the worker may begin a range."""
        return self.level > lane

    def rest_s(self, lane: int, worked_s: float) -> float:
        """How long it rests after a piece of work that took so long."""
        share = min(1.0, max(SLOWEST, self.level - lane)) * self._limits.share
        return worked_s * (1 / share - 1)

    def learn(self, look: Look) -> None:
        """What it is like while nothing is copied."""
        self._before.setdefault(look.cell, []).append(look)

    def consider(self, looks: Sequence[Look]) -> None:
        found = [sentence for look in looks if (sentence := self._objection(look)) is not None]
        self.pressure = " ".join(found) or None
        if found:
            self.held_back += 1
            self.level = max(SLOWEST, self.level * 2 / 3)
        else:
            self.level = min(float(self._workers), self.level + self._workers / 10)

    def _objection(self, look: Look) -> str | None:
        limits = self._limits
        if look.standby_lag_bytes > limits.standby_lag_bytes:
            return f"A standby of {look.cell} is {look.standby_lag_bytes >> 20} MiB behind."
        if look.slot_room_bytes is not None and look.slot_room_bytes < limits.slot_room_bytes:
            return f"A slot of {look.cell} has {look.slot_room_bytes >> 20} MiB of log left before it is given up."
        lately = self._lately.setdefault(look.cell, deque(maxlen=_RECENT_LOOKS))
        lately.append(look)
        before = self._before.get(look.cell, [])
        now_ms, before_ms = _commit_ms(lately), _commit_ms(before)
        if now_ms > max(limits.slow_ms, before_ms * limits.slower_times):
            return f"A commit in {look.cell} takes {now_ms:.0f} ms, and took {before_ms:.0f} before the copy."
        late, late_before = _late(lately), _late(before)
        if late > late_before + limits.late_share:
            return f"The processors of {look.cell} are busy: {late:.0%} come late, and {late_before:.0%} did before the copy."
        return None


def limits_of(settings: MigratorSettings) -> Limits:
    return Limits(
        settings.throttle_standby_lag_bytes,
        settings.throttle_slot_room_bytes,
        settings.throttle_slower_times,
        settings.throttle_slow_ms,
        settings.throttle_late_share,
        settings.throttle_share,
    )


def _commit_ms(looks: Collection[Look]) -> float:
    return median([look.commit_ms for look in looks] or [0.0])


def _late(looks: Collection[Look]) -> float:
    return fmean([look.late for look in looks] or [0.0])


class Throttle:
    """Made by `throttling`; a Copier awaits it before each range, and rests within it as the pace says."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace

    async def __call__(self, lane: int) -> None:
        while not self.pace.goes(lane):  # noqa: ASYNC110 - it is time that is waited for
            await asyncio.sleep(LOOK_EVERY_S)


@asynccontextmanager
async def throttling(ends: Sequence[Home], workers: int, limits: Limits, warrant: Warrant) -> AsyncIterator[Throttle]:
    """Look at both ends for the length of the block; first at what they are like without a copy."""
    pace = Pace(workers, limits)
    async with AsyncExitStack() as stack:
        # A move within one cell has both ends in it.
        cells = {end.cell: end for end in ends}
        probes = [(cell, await stack.enter_async_context(probing(end, warrant))) for cell, end in cells.items()]
        for _ in range(_BASELINE_LOOKS):
            for cell, connection in probes:
                pace.learn(await _look(cell, connection))
        await _consider(pace, probes)
        watching = asyncio.create_task(_watch(pace, probes))
        try:
            yield Throttle(pace)
        finally:
            watching.cancel()
            await asyncio.wait({watching})


async def _watch(pace: Pace, probes: Sequence[tuple[str, asyncpg.Connection]]) -> None:
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            await _consider(pace, probes)
        except NO_ANSWER as error:
            # The copy's own sessions find out what that means for it.
            log.warning("throttle.blind", error=type(error).__name__)
            return


async def _consider(pace: Pace, probes: Sequence[tuple[str, asyncpg.Connection]]) -> None:
    pace.consider([await _look(cell, connection) for cell, connection in probes])


async def _look(cell: str, connection: asyncpg.Connection) -> Look:
    begun = time.perf_counter()
    await connection.execute(_PROBE)
    commit_ms = (time.perf_counter() - begun) * 1000
    naps = await connection.fetch(_NAP, _NAPS)
    late = fmean((nap["until"] - nap["since"]).total_seconds() > _LATE_S for nap in naps)
    [row] = await connection.fetch(_LOOK)
    return Look(cell, row["lag"], row["room"], commit_ms, late)
