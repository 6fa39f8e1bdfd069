"""The only writer of a phase. Under a lease: run the step, then compare and set phase, attempt and epoch in one commit.

No transaction is open while a step runs: where catalog and cell share a cluster, it would make the creation of a
replication slot wait for ever (migrator protocol, «one engine for all directions»).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from strata.migrator import transitions
from strata.migrator.errors import CalledOffError, PutOffError, SupersededError
from strata.migrator.faults import reached
from strata.migrator.lease import interrupted
from strata.migrator.moves import SILENCE_S, briefly
from strata.migrator.phases import AT_THE_FLIP, Phase, half_done_in
from strata.migrator.transitions import Advance
from strata.migrator.verdicts import Verdict, failure_of, verdict_on
from strata.platform.cancellation import through
from strata.platform.errors import StrataError

if TYPE_CHECKING:
    from strata.migrator.moves import Move, Moves
    from strata.migrator.steps.base import Step
    from strata.migrator.work import Work

log = structlog.get_logger(__name__)

_ASK_CATALOG_AGAIN_S = 0.2
_LONGEST_SILENCE_S = 30.0
_LONGEST_CROSSING_S = 2.0
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)


class Machine:
    """Works one move, whose lease this process holds, until it is finished or waits for a person."""

    def __init__(self, moves: Moves, steps: Mapping[Phase, Step]) -> None:
        self._moves = moves
        self._steps = steps
        self._troubles = 0

    async def run(self, work: Work, found_in: Phase) -> Move:
        """`found_in`: the phase before the lease was taken; what its step left half done is undone first."""
        await self._recover(work, found_in)
        while not work.move.finished and (work.move.phase is not Phase.FAILED or work.wish is not None):
            if work.move.phase in AT_THE_FLIP:
                # A worker that is told to stop first flips or opens the fence again: nobody else may be there to do it.
                await through(self._take_step(work), _LONGEST_CROSSING_S)
            else:
                await self._take_step(work)
        return work.move

    async def _take_step(self, work: Work) -> None:
        step = self._steps[work.move.phase]
        try:
            advance = await interrupted(work, _run(work, step))
        except Exception as error:  # noqa: BLE001 - the edge of the job: every failure gets its verdict
            await self._after(work, step, error)
        else:
            self._troubles = 0
            await self._advance(work, advance)
            await reached(f"{step.phase}.advanced")

    async def _recover(self, work: Work, found_in: Phase) -> None:
        """Make sure that nobody of before writes any more, then undo what cannot simply be run again."""
        half_done = half_done_in(found_in, work.move.epoch, work.move.target_epoch)
        while True:
            try:
                if half_done is not None:
                    # The fence may be shut: nothing comes before opening it again.
                    await self._steps[half_done].compensate(work)
                await work.fence_off_the_past()
            except Exception as error:
                if verdict_on(error) is not Verdict.AGAIN:
                    raise
                await self._wait(work, error)
            else:
                return

    async def _after(self, work: Work, step: Step, error: Exception) -> None:
        verdict = verdict_on(error)
        if verdict is Verdict.SUPERSEDED:
            raise SupersededError(work.move.id, work.move.attempt) from error
        told = {"move": str(work.move.id), "phase": work.move.phase, "verdict": verdict.name}
        if isinstance(error, StrataError):
            # Expected, and told in a sentence. To draw a traceback takes longer than a fence may be shut.
            log.warning("move.trouble", **told, code=error.code, detail=error.detail)
        else:
            log.warning("move.trouble", **told, exc_info=error)
        if work.move.phase in AT_THE_FLIP:
            # First the catalog says that attempt n is over, then the fence opens: migrator protocol, step 5.
            await self._advance(work, Advance.called_off(work.move, error, await self._next_attempt()))
            await reached(f"{step.phase}.called_off")
            await self._compensate(work, step)
            await self._wait(work, error)
        elif verdict is Verdict.COPY_AGAIN and work.move.phase in transitions.COPIES_AGAIN:
            await self._compensate(work, step)
            await self._advance(work, Advance.copy_again(error))
        elif verdict is Verdict.AGAIN:
            await self._wait(work, error)
        else:
            await self._compensate(work, step)
            await self._advance(work, Advance.failed(failure_of(work.move, error)))
            work.wish = work.move.wish

    async def _compensate(self, work: Work, step: Step) -> None:
        """Until it is done: a fence left shut or a slot left behind is worse than a worker that keeps trying."""
        while True:
            try:
                await step.compensate(work)
            except Exception as error:
                if verdict_on(error) is not Verdict.AGAIN:
                    raise
                await self._wait(work, error)
            else:
                return

    async def _wait(self, work: Work, error: Exception) -> None:
        pause_s = (
            error.after_s if isinstance(error, PutOffError) else _PAUSES_S[min(self._troubles, len(_PAUSES_S) - 1)]
        )
        self._troubles += not isinstance(error, PutOffError) or isinstance(error, CalledOffError)
        await work.waiting(error, pause_s)

    async def _advance(self, work: Work, advance: Advance) -> None:
        """Compare and set. An outcome that was not heard is read again, until the catalog says what it was."""
        before, within_s = work.move, SILENCE_S
        at_hand = work.crossed.at_hand if work.crossed and advance.flip else None
        while True:
            try:
                async with briefly(at_hand, within_s) if at_hand else self._moves.writing_briefly(within_s) as session:
                    work.move = await transitions.compare_and_set(session, before, advance)
            except (SQLAlchemyError, OSError) as error:
                log.warning("move.outcome_unknown", move=str(before.id), error=type(error).__name__)
                # On a machine that is at its limit, nothing would ever be quick enough.
                within_s, at_hand = min(within_s * 2, _LONGEST_SILENCE_S), None
                await asyncio.sleep(_ASK_CATALOG_AGAIN_S)
                now = await self._read(before)
                if now is not None and transitions.has_happened(before, advance, now):
                    work.move = now
                    break
            else:
                break
        log.info(
            "move.phase", move=str(before.id), tenant=before.slug, phase=work.move.phase, attempt=work.move.attempt
        )

    async def _next_attempt(self) -> int:
        """When the catalog gives it: the fence is shut, and a worker that gave up here would have to be found out first."""
        while True:
            try:
                return await self._moves.next_attempt()
            except (SQLAlchemyError, OSError) as error:
                log.warning("move.no_attempt", error=type(error).__name__)
                await asyncio.sleep(_ASK_CATALOG_AGAIN_S)

    async def _read(self, move: Move) -> Move | None:
        try:
            return await self._moves.get(move.id)
        except (SQLAlchemyError, OSError):
            return None


async def _run(work: Work, step: Step) -> Advance:
    await reached(f"{step.phase}.begin")
    await step.check(work)
    advance = await step.run(work)
    await reached(f"{step.phase}.done")
    return advance
