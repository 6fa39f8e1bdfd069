"""catching_up: apply what was written since the snapshot, until little is left."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, ClassVar

from strata.migrator.errors import CopyAgainError
from strata.migrator.phases import Phase
from strata.migrator.slots import slot_state
from strata.migrator.streams import Direction, stream_name
from strata.migrator.transitions import Advance

if TYPE_CHECKING:
    from strata.migrator.replay import Replay
    from strata.migrator.work import Work

_TELL_EVERY_S = 0.5


class CatchUp:
    phase: ClassVar = Phase.CATCHING_UP
    rerunnable: ClassVar = True

    async def check(self, work: Work) -> None:
        """The stream checks slot, publication and progress whenever it is opened."""

    async def run(self, work: Work) -> Advance:
        replay = await work.streams.replay(work.move, Direction.OUT)
        caught_up = asyncio.ensure_future(replay.caught_up(work.settings.lag_gate_bytes))
        try:
            while not caught_up.done():
                await asyncio.wait({caught_up}, timeout=_TELL_EVERY_S)
                await watch_lag(work, replay)
            await caught_up
        finally:
            caught_up.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await caught_up
        status = replay.status()
        return Advance(Phase.VERIFYING, "caught up", detail={"transactions": status.transactions})

    async def compensate(self, work: Work) -> None:
        """Whatever it came to, what was copied is not trusted any more."""
        await work.let_streams_go()


async def watch_lag(work: Work, replay: Replay) -> None:
    """Write the lag for those who watch; a slot that makes the source keep too much of its log is given up."""
    await work.note(lag_bytes=await replay.lag_bytes(), transactions=replay.status().transactions, waiting=None)
    state = await slot_state(work.source.dsn, stream_name(work.move, Direction.OUT))
    if state is not None and (state.kept_bytes or 0) > work.settings.wal_cap_bytes:
        message = f"The source keeps {state.kept_bytes:,} bytes of its log for this move, more than it may."
        raise CopyAgainError(message)
