"""The same model from where the home that a tenant lives in is lost: the loss is accepted, the home is restored, or, where the
other home goes too, the move is given up.

    goes, is back        the home that was left goes with its server, and somebody brings it back as it was; no more often
    require_kept         steps.acceptance: before anything is shut, there is a home to live on in; else the move fails with
                         `other-home-gone`
    cancels              a person wishes to give the tenant up: the desk hears that of such a move, and of no other
    look_for_both        acceptance.give_up looks whether either home is there again: then nothing is given up
    give_up              its compare-and-set: the move ends without a flip
    end                  completing, which looks first whether the home that it removes lets anybody in (removal._guard); if it
                         does (an acceptance that died has opened it, before it went), the move fails, and a retry shuts it

A write that is in neither home when both have been looked for is one that the operator has accepted to be lost. Until then what
has gone with a server is not lost: somebody may still have its disk.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.migrator.model.cutover import (
    ACTIVE,
    APPROVED,
    COMPLETED,
    COMPLETING,
    FAILED,
    FIRST_EPOCH,
    MOVED,
    OUT,
    RETAINING,
    ROLLED_BACK,
    SOURCE,
    TARGET,
    WITHDRAWING,
    Bounds,
    CutOver,
    Gone,
    Request,
    Row,
    State,
    Worker,
    replaced,
)


class Lost(CutOver):
    """The move has failed with `home-lost`: one write was made before the flip, and one behind it, which went with the
    server. Rows of the target's fence: whether the standby had heard of an earlier cut-over, which was called off.

    `kept_goes`: the other home may go too."""

    def __init__(
        self, bounds: Bounds, *, heard_of_another: bool = False, kept_goes: bool = False, without: str = ""
    ) -> None:
        super().__init__(bounds, standby_of=TARGET, without=without)
        self._stale = Row(FIRST_EPOCH + 1, MOVED, 1, TARGET) if heard_of_another else None
        self._kept_goes = kept_goes
        self._acts |= {
            "require_kept": self._require_kept,
            "look_for_both": self._look_for_both,
            "give_up": self._give_up,
            "end": self._end,
        }

    def initial(self) -> State:
        epoch = FIRST_EPOCH + 2
        return (
            super()
            .initial()
            ._replace(
                home=TARGET,
                epoch=epoch,
                target_epoch=epoch,
                move_epoch=epoch,
                epochs=epoch,
                phase=FAILED,
                attempt=2,
                attempts=2,
                published=((SOURCE, FIRST_EPOCH), (TARGET, epoch)),
                rows=(Row(FIRST_EPOCH, MOVED, 2, SOURCE), self._stale),
                stamps=(2, 1 if self._stale else 0),
                log=(1, -2),
                applied=2,
                acknowledged=frozenset({1}),
                writes=2,
                failover=APPROVED,
            )
        )

    def _of_standby(self, state: State) -> Iterator[tuple[str, State]]:
        yield from super()._of_standby(state)
        if not self._kept_goes:
            return
        if state.gone is not None:
            if state.phase in {FAILED, COMPLETING, WITHDRAWING} and not state.is_back:
                yield "kept home: is back", self._back(state, state.gone)
        elif state.phase == FAILED and state.home == TARGET:
            yield "kept home: goes", self._without_kept(state)
        if state.said_to_be_gone and not state.cancel:
            yield "operator: cancels", state._replace(cancel=True)

    def _without_kept(self, state: State) -> State:
        had = Gone(state.rows[SOURCE], state.stamps[SOURCE], state.log)
        ended = tuple(sorted(Request() if each.home == SOURCE else each for each in state.requests))
        after = state._replace(gone=had, stamps=replaced(state.stamps, SOURCE, 0), log=(), requests=ended)
        return self._with_row(after, SOURCE, None)

    def _back(self, state: State, had: Gone) -> State:
        after = state._replace(is_back=True, stamps=replaced(state.stamps, SOURCE, had.stamp), log=had.log)
        return self._with_row(after, SOURCE, had.row)

    @staticmethod
    def _is_kept(state: State) -> bool:
        return state.gone is None or state.is_back

    def _is_lost(self, state: State) -> bool:
        if state.home == SOURCE:
            # It is being removed: nobody lives on there any more.
            return False
        return super()._is_lost(state) or (state.given_up and not self._is_let_in_there(state))

    def _goes_on_with(self, state: State) -> str:
        if state.phase == COMPLETING:
            return "end"
        if state.phase != FAILED:
            return super()._goes_on_with(state)
        if state.given_up:
            return "try_again"
        return "look_for_both" if state.cancel else "require_kept"

    def _stamp_source(self, state: State, worker: Worker) -> tuple[State, Worker]:
        if not self._is_kept(state):
            return state, worker._replace(at="stamp_target")
        return super()._stamp_source(state, worker)

    @staticmethod
    def _stands(state: State, worker: Worker, phase: str = FAILED) -> bool:
        return state.phase == phase and state.attempt == worker.attempt

    @staticmethod
    def _fails(state: State, *, gone: bool = False) -> tuple[State, Worker]:
        """Of what it says now; what was wished of it is over."""
        return state._replace(phase=FAILED, said_to_be_gone=gone, cancel=False), Worker()

    @staticmethod
    def _resumed(state: State, worker: Worker) -> tuple[State, Worker]:
        """Back in the phase in which it failed."""
        phase, at = (WITHDRAWING, "withdraw") if state.home == SOURCE else (RETAINING, "retire_source")
        if state.given_up and state.home == TARGET:
            phase, at = COMPLETING, "end"
        return state._replace(phase=phase, said_to_be_gone=False, cancel=False), worker._replace(at=at)

    def _require_kept(self, state: State, worker: Worker) -> tuple[State, Worker]:
        if not self._stands(state, worker):
            return state, Worker()
        if state.home == SOURCE:
            # Lost after the flip that an acceptance came to: there is no third home.
            return (state, worker._replace(at="try_again")) if self._is_open(state) else self._fails(state, gone=True)
        return (state, worker._replace(at="shut_lost")) if self._is_kept(state) else self._fails(state, gone=True)

    def _open_kept(self, state: State, worker: Worker) -> tuple[State, Worker]:
        if not self._is_kept(state):
            return state, worker._replace(at="require_kept", epoch=0)
        return super()._open_kept(state, worker)

    def _look_for_both(self, state: State, worker: Worker) -> tuple[State, Worker]:
        if not self._stands(state, worker) or not self._holds(state, worker, TARGET):
            return state, Worker()
        if self._is_open(state):
            if self._without == "shut_kept after a cancel":
                return self._resumed(state, worker)
            return state, worker._replace(at="try_again")
        if state.home == TARGET and self._is_kept(state) and self._without != "look before giving up":
            return self._fails(state)
        nowhere = state.acknowledged - state.in_source - state.in_target
        return state._replace(accepted=state.accepted | nowhere), worker._replace(at="give_up")

    def _give_up(self, state: State, worker: Worker) -> tuple[State, Worker]:
        if not self._stands(state, worker):
            return state, Worker()
        return self._resumed(state._replace(given_up=True), worker)

    def _try_again(self, state: State, worker: Worker) -> tuple[State, Worker]:
        if not self._stands(state, worker):
            return state, Worker()
        if state.home == TARGET and self._is_kept(state):
            after, left = super()._try_again(state, worker)
            return self._resumed(after, left) if left.at != OUT else (after, left)
        return self._resumed(state, worker)

    def _withdraw(self, state: State, worker: Worker) -> tuple[State, Worker] | None:
        if self._stands(state, worker, WITHDRAWING) and not state.given_up and not self._is_open(state):
            return self._fails(state)
        return super()._withdraw(state, worker)

    def _end(self, state: State, worker: Worker) -> tuple[State, Worker]:
        if not self._stands(state, worker, COMPLETING):
            return state, Worker()
        if self._is_kept(state):
            if not self._holds(state, worker, SOURCE):
                return state, Worker()
            row = state.rows[SOURCE]
            if row is not None and row.state == ACTIVE:
                return self._fails(state)
        return state._replace(phase=COMPLETED, log=()), Worker()

    def _kept(self, state: State) -> frozenset[int]:
        on_a_disk = frozenset(state.gone.log if state.gone is not None and not state.is_back else ())
        return super()._kept(state) | on_a_disk | state.accepted

    def is_good(self, state: State) -> bool:
        """Or a person has given it up, and the move has ended: it can be deleted."""
        return super().is_good(state) or (state.given_up and state.phase in {COMPLETED, ROLLED_BACK})

    def must_get_on(self, state: State) -> bool:
        """One that takes it up may find nothing but what it has failed of now: it is the next that goes on."""
        return state.attempts + self._kept_goes < self.bounds.attempts or state.phase in {COMPLETED, ROLLED_BACK}

    def broken(self, state: State) -> str | None:
        if state.phase == COMPLETED and any(row is not None and row[1::2] == (ACTIVE, SOURCE) for row in state.rows):
            return "a home that was removed is open"
        return super().broken(state)
