"""retaining: the tenant lives in its new home; the old one follows, so that the move can still be undone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

from strata.migrator import fence
from strata.migrator.errors import CopyAgainError, WayBackLostError
from strata.migrator.phases import Phase, Wish
from strata.migrator.replication_errors import ReplicationError, UnappliableError
from strata.migrator.slots import slot_state
from strata.migrator.steps.approach import expect, gate
from strata.migrator.steps.roll_back import left_at
from strata.migrator.steps.settling import require_home, say_so, settle, tell_of_arrival
from strata.migrator.streams import Direction, stream_name
from strata.migrator.transitions import Advance
from strata.migrator.verdicts import Verdict, verdict_on
from strata.tenancy.replicas.closing import close_to_standbys

if TYPE_CHECKING:
    from strata.migrator.replay import Replay
    from strata.migrator.work import Work

_LOOK_EVERY_S = 1.0


class Retain:
    phase: ClassVar = Phase.RETAINING
    rerunnable: ClassVar = True

    async def check(self, work: Work) -> None:
        """The flip has been made; nothing can be refused any more."""

    async def run(self, work: Work) -> Advance:
        await say_so(work)
        if not await work.target.is_there():
            await require_home(work, work.target, left_at(work))
        try:
            await self._heed_the_cap(work)
        except WayBackLostError as error:
            # Also when the old home's server has been away for so long that nothing else here can be done.
            return Advance(Phase.COMPLETING, "retention ended", detail={"code": error.code, "reason": error.detail})
        await settle(work, Direction.OUT, work.move.source_epoch)
        async with work.target.writing() as target:
            await fence.reopen_shut(target, work.move.tenant_id, left_at(work), work.move.attempt)
        await require_home(work, work.target, left_at(work))
        await tell_of_arrival(work, left_at(work))
        await work.streams.close(Direction.OUT)
        await work.around.objects.drop_streams(work.move.id, work.ends, only=[stream_name(work.move, Direction.OUT)])
        if not work.move.retention_s:
            return Advance(Phase.COMPLETING, "completing", detail={"reason": "no retention was asked for"})
        try:
            return await self._retain(work)
        except (CopyAgainError, ReplicationError, UnappliableError, WayBackLostError) as error:
            if verdict_on(error) in {Verdict.AGAIN, Verdict.SUPERSEDED}:
                raise
            # A slot goes with the server that is failed over, and so does what the tenant has written there.
            await require_home(work, work.target, left_at(work))
            return Advance(Phase.COMPLETING, "retention ended", detail={"code": error.code, "reason": error.detail})

    async def _retain(self, work: Work) -> Advance:
        replay = await work.streams.replay(work.move, Direction.BACK)
        while True:
            await self._look(work, replay)
            if work.wish is Wish.ROLL_BACK:
                return await self._turn_back(work, replay)
            if work.wish is Wish.COMPLETE:
                return Advance(Phase.COMPLETING, "completing", detail={"reason": "asked for"})
            if work.move.retained_until is not None and datetime.now(UTC) >= work.move.retained_until:
                return Advance(Phase.COMPLETING, "completing", detail={"reason": "the retention is over"})
            stopped = asyncio.ensure_future(replay.failed())
            heard = asyncio.ensure_future(work.news(_LOOK_EVERY_S))
            try:
                await asyncio.wait({stopped, heard}, return_when=asyncio.FIRST_COMPLETED)
                if stopped.done():
                    stopped.result()
            finally:
                for task in (stopped, heard):
                    task.cancel()
                await asyncio.wait({stopped, heard})

    async def _look(self, work: Work, replay: Replay) -> None:
        """Write how far the old home is behind."""
        await work.note(lag_bytes=await replay.lag_bytes(), transactions=replay.status().transactions, waiting=None)
        await self._heed_the_cap(work)

    async def _heed_the_cap(self, work: Work) -> None:
        """Give the way back up rather than fill the server's disk."""
        state = await slot_state(work.target.dsn, stream_name(work.move, Direction.BACK))
        kept = (state.kept_bytes or 0) if state is not None else 0
        if kept > work.settings.wal_cap_bytes:
            message = f"The way back made the server keep {kept:,} bytes of its log, more than it may."
            raise WayBackLostError(message)

    async def _turn_back(self, work: Work, replay: Replay) -> Advance:
        """What `ready` does for a cut-over, for the one in reverse."""
        async with work.target.admin() as target:
            await close_to_standbys(target, work.move.tenant_id, left_at(work))
        await expect(work, work.move.source, left_at(work))
        await gate(work, work.target, replay)
        return Advance(Phase.ROLLING_BACK, "rolling back", epoch=await work.around.moves.next_epoch())

    async def compensate(self, work: Work) -> None:
        """A failure that nobody understands must not leave a slot behind that fills the disk."""
        await work.let_streams_go()
