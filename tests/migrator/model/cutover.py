"""The cut-over and its recovery, as a model small enough to be explored whole.

To be read beside the code: an action here bears the name of what does it there.

    take                         lease.take: a new attempt; in a phase in which the fence may be shut, the abort of the old
    stamp_source, stamp_target   Work.fence_off_the_past: nobody of an earlier attempt writes in the cell from now on
    begin                        Machine, ready to cutting_over: a fresh epoch e', by compare-and-set on n
    close_source … open_target   strata.migrator.fence, steps 2 to 6 of steps/cut_over.py
    flip                         transitions._flip with its compare-and-set: the one act that cannot be taken back
    retire_source                fence.retire, in `retaining`
    abort                        Machine._after: the catalog says first that attempt n is over
    reopen_source, retire_target steps.cut_over.undo

Each action is one transaction, so it happens whole or not at all. Between any two of them a worker may die, or sleep and
go on later, after another has taken over: with two workers both are explored in every order. A lease is not modelled
(time is not): anybody may take over at any moment, which is worse than what a lease allows. Applications hold any
placement that ever stood in the catalog, however old.

A flip may be sent and its answer lost: it then arrives at any later moment, or never, while the worker believes nothing.

A rollback is the same cut-over with the homes exchanged, and is not explored twice.

With `standby_of`, one of the two cells may once be failed over to a standby that is behind:

    falls behind                 from here on the standby gets nothing more
    is promoted                  the cell has what the standby has, on a timeline that nobody has approved: it lets nobody
                                 in, and of a worker's acts only those that shut (End.require_approved, End.shutting)
    is approved                  ApprovalDesk.approve: not while a cut-over is under way in the catalog (_wait_for_cut_overs),
                                 and no row lets anybody in but where the catalog says (reconcile); then the timeline
    copy                         what was copied before is no good any more: a new copy, before the next cut-over
    complete                     completing, which looks first whether the tenant is let in where it lives (require_home);
                                 if not, the move has failed with `home-lost`, which keeps the old home; and it waits
                                 until that home's standbys have heard of the arrival (require_standbys)
    is restored                  somebody brings rows and fence row of a lost home back, and retries the move
    shut_lost, open_kept, accept_loss
                                 steps.acceptance: a person accepts the loss, and the tenant lives on in the old home;
                                 unless the lost one has been restored before it was shut (try_again)
    withdraw                     the lost home is removed, whoever had restored it too late
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

SOURCE, TARGET = 0, 1
READY, CUTTING_OVER, RETAINING, FAILED, COMPLETED = "ready", "cutting_over", "retaining", "failed", "completed"
COMPLETING, WITHDRAWING, ROLLED_BACK = "completing", "withdrawing", "rolled_back"
ACTIVE, MOVING, MOVED = "active", "moving", "moved"
FIRST_EPOCH = 1
OUT = "out"
IN_STEP, BEHIND, PROMOTED, APPROVED = "in step", "behind", "promoted", "approved"


class Row(NamedTuple):
    """A tenant's row in a cell's fence."""

    epoch: int
    state: str
    attempt: int
    home: int


class Worker(NamedTuple):
    at: str = OUT
    token: int = 0
    """The attempt with which it took the move: what the cells were stamped with."""
    attempt: int = 0
    epoch: int = 0
    """e' of the cut-over it works on, or that it found begun."""


class Request(NamedTuple):
    """A transaction of the application's: comes with a placement, takes the lock, reads the row, writes, commits."""

    at: str = OUT
    home: int = 0
    epoch: int = 0


class Standby(NamedTuple):
    """What the standby of a cell has of it."""

    row: Row | None
    stamp: int = 0
    log: tuple[int, ...] = ()
    in_target: frozenset[int] = frozenset()
    applied: int = 0


class Gone(NamedTuple):
    """A home that has gone, as it is brought back: from a disk or a backup."""

    row: Row | None
    stamp: int
    log: tuple[int, ...]


class State(NamedTuple):
    home: int = SOURCE
    epoch: int = FIRST_EPOCH
    phase: str = READY
    attempt: int = 0
    move_epoch: int = 0
    attempts: int = 0
    """The last number given out; so is `epochs`."""
    epochs: int = FIRST_EPOCH
    target_epoch: int = 0
    published: tuple[tuple[int, int], ...] = ((SOURCE, FIRST_EPOCH),)
    rows: tuple[Row | None, Row | None] = (Row(FIRST_EPOCH, ACTIVE, 0, SOURCE), None)
    stamps: tuple[int, int] = (0, 0)
    log: tuple[int, ...] = ()
    """The source's: n for the n-th write, -n for the marker of attempt n."""
    applied: int = 0
    applier: int = 0
    in_target: frozenset[int] = frozenset()
    acknowledged: frozenset[int] = frozenset()
    """Without those that went with a server whose standby had not got them."""
    writes: int = 0
    under_way: tuple[tuple[int, int], ...] = ()
    """Flips that were sent and not answered: attempt and e'."""
    workers: tuple[Worker, ...] = (Worker(), Worker())
    requests: tuple[Request, ...] = (Request(),)
    standby: Standby | None = None
    """Once it is behind."""
    failover: str = IN_STEP
    restored: bool = False
    """The lost home has been brought back, once."""
    copied: bool = True
    """Whether the copy and the stream are still of one history."""
    gone: Gone | None = None
    """What the other home had when it went too (tests/migrator/model/lost.py, as all that follows)."""
    is_back: bool = False
    said_to_be_gone: bool = False
    """The move's failure is `other-home-gone`."""
    cancel: bool = False
    """A person wishes to give it up."""
    given_up: bool = False
    accepted: frozenset[int] = frozenset()
    """Writes that were in neither home when it was given up."""

    @property
    def in_source(self) -> frozenset[int]:
        return frozenset(each for each in self.log if each > 0)


class Bounds(NamedTuple):
    requests: int
    """At once."""
    writes: int
    attempts: int
    """Times that a worker takes the move."""
    workers: int = 2


class CutOver:
    """`same_cell`: both homes share a database, and so one fence row. `standby_of`: the cell that may be failed over.
    `without`: a guard left out, to see that it is missed (tests/migrator/model/test_model.py)."""

    def __init__(
        self, bounds: Bounds, *, same_cell: bool = False, standby_of: int | None = None, without: str = ""
    ) -> None:
        self._same_cell = same_cell
        self._standby_of = standby_of
        self._without = without
        self.bounds = bounds
        self._acts: dict[str, Callable[[State, Worker], tuple[State, Worker] | None]] = {
            "stamp_source": self._stamp_source,
            "stamp_target": self._stamp_target,
            "reopen_source": self._reopen_source,
            "retire_target": self._retire_target,
            "begin": self._begin,
            "close_source": self._close_source,
            "drain": self._drain,
            "apply": self._apply,
            "open_target": self._open_target,
            "flip": self._flip,
            "retire_source": self._retire_source,
            "abort": self._abort,
            "copy": self._copy,
            "complete": self._complete,
            "shut_lost": self._shut_lost,
            "open_kept": self._open_kept,
            "accept_loss": self._accept_loss,
            "try_again": self._try_again,
            "withdraw": self._withdraw,
        }

    def initial(self) -> State:
        return State(workers=(Worker(),) * self.bounds.workers, requests=(Request(),) * self.bounds.requests)

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        for number, worker in enumerate(state.workers):
            for label, after in self._of_worker(state, number, worker):
                # Which worker is which does not matter: states that differ in that alone are one.
                yield label, after._replace(workers=tuple(sorted(after.workers)))
        for number, request in enumerate(state.requests):
            for label, after, left in self._of_request(state, request):
                yield (
                    f"request: {label}",
                    after._replace(requests=tuple(sorted(replaced(after.requests, number, left)))),
                )
        for sent in state.under_way:
            left_over = tuple(each for each in state.under_way if each != sent)
            yield f"flip of attempt {sent[0]} arrives", self._flipped(state, *sent)._replace(under_way=left_over)
        yield from self._of_standby(state)

    def _of_standby(self, state: State) -> Iterator[tuple[str, State]]:
        cell = self._standby_of
        if cell is None:
            return
        match state.failover:
            case "in step":
                behind = state._replace(standby=self._of_the_cell(state, cell), failover=BEHIND)
                yield "standby: falls behind", behind
            case "behind":
                assert state.standby is not None
                yield "standby: is promoted", self._promoted(state, cell, state.standby)
            case "promoted" if state.phase != CUTTING_OVER or self._without == "wait for cut-overs":
                yield "standby: is approved", self._approved(state, cell)
            case "approved" if cell == TARGET and not state.restored and self._is_lost(state):
                yield "standby: is restored", self._restored(state)

    def _is_lost(self, state: State) -> bool:
        lived_there = state.home == TARGET or state.phase == WITHDRAWING
        return lived_there and state.phase in {FAILED, WITHDRAWING} and not self._is_let_in_there(state)

    def _is_let_in_there(self, state: State) -> bool:
        return self._lets_in(state, Request("locked", TARGET, state.target_epoch))

    def _restored(self, state: State) -> State:
        """By INSERT of the row that there was: one that has been left there meanwhile is written over only by who sees that
        an acceptance has died, and nobody works on the move."""
        row = state.rows[TARGET]
        by_hand = state.phase in {FAILED, COMPLETED} and all(worker.at == OUT for worker in state.workers)
        if row is not None and row.epoch >= state.target_epoch and not by_hand:
            return state._replace(restored=True)
        back = Row(state.target_epoch, ACTIVE, 0, TARGET)
        # All that had been acknowledged: from the old primary's disk.
        everything = frozenset(range(1, state.writes + 1))
        return self._with_row(state, TARGET, back)._replace(restored=True, in_target=everything)

    @staticmethod
    def _of_the_cell(state: State, cell: int) -> Standby:
        if cell == SOURCE:
            return Standby(state.rows[SOURCE], state.stamps[SOURCE], log=state.log)
        return Standby(state.rows[TARGET], state.stamps[TARGET], in_target=state.in_target, applied=state.applied)

    def _promoted(self, state: State, cell: int, had: Standby) -> State:
        after = self._with_row(state, cell, had.row)._replace(
            stamps=replaced(state.stamps, cell, had.stamp),
            requests=tuple(sorted(Request() if each.home == cell else each for each in state.requests)),
            standby=None,
            failover=PROMOTED,
            copied=state.phase == RETAINING,
        )
        if cell == SOURCE:
            after = after._replace(log=had.log)
        else:
            after = after._replace(in_target=had.in_target, applied=had.applied)
        kept = after.in_source if state.home == SOURCE else after.in_source | after.in_target
        return after._replace(acknowledged=state.acknowledged & kept)

    def _approved(self, state: State, cell: int) -> State:
        row = state.rows[cell]
        is_stale = row is not None and row.state == ACTIVE and (row.home, row.epoch) != (state.home, state.epoch)
        if row is not None and is_stale and self._without != "rows set by the approval":
            state = self._with_row(state, cell, row._replace(state=MOVED))
        return state._replace(failover=APPROVED)

    def _is_shut_out(self, state: State, home: int) -> bool:
        return state.failover == PROMOTED and home == self._standby_of

    def _of_worker(self, state: State, number: int, worker: Worker) -> Iterator[tuple[str, State]]:
        def put(label: str, after: State, left: Worker) -> tuple[str, State]:
            return f"worker of attempt {left.attempt or worker.attempt}: {label}", after._replace(
                workers=replaced(after.workers, number, left)
            )

        if worker.at == OUT:
            if state.attempts < self.bounds.attempts and self._has_work(state):
                yield put("take", *self._take(state))
            return
        yield put("dies", state, Worker())
        done = self._acts[worker.at](state, worker)
        if done is not None:
            yield put(worker.at, *done)
        if worker.at in {"close_source", "drain", "apply", "open_target", "flip"}:
            yield put(f"{worker.at} is late", state, worker._replace(at="abort"))
        # With a standby, a worker that sleeps before the flip is enough of that.
        if worker.at == "flip" and not state.under_way and self._standby_of is None:
            sent = state._replace(under_way=((worker.attempt, worker.epoch),))
            yield put("flip is sent, and no answer comes", sent, worker._replace(at="abort"))

    def _has_work(self, state: State) -> bool:
        return state.phase not in {COMPLETED, ROLLED_BACK}

    def _take(self, state: State) -> tuple[State, Worker]:
        number = state.attempts + 1
        found_shut = state.phase == CUTTING_OVER
        after = state._replace(attempts=number, attempt=number, phase=READY if found_shut else state.phase)
        # In `ready` too what was called off may not be undone yet: phases.half_done_in.
        half_done = found_shut or state.phase == READY
        worker = Worker("stamp_source", number, number, state.move_epoch if half_done else 0)
        return after, worker

    def _stamp_source(self, state: State, worker: Worker) -> tuple[State, Worker]:
        return self._stamp(state, worker, SOURCE, "stamp_target")

    def _stamp_target(self, state: State, worker: Worker) -> tuple[State, Worker]:
        following = "reopen_source" if worker.epoch else self._goes_on_with(state)
        after, left = self._stamp(state, worker, TARGET, following)
        return (after._replace(applier=worker.token) if left.at != OUT else after), left

    def _goes_on_with(self, state: State) -> str:
        # A failed move is taken because a person has accepted the loss, or has asked for it to be tried again.
        return {RETAINING: "retire_source", FAILED: "shut_lost", WITHDRAWING: "withdraw"}.get(state.phase, "begin")

    def _stamp(self, state: State, worker: Worker, home: int, following: str) -> tuple[State, Worker]:
        cell = self._cell(home)
        if state.stamps[cell] > worker.token:
            return state, Worker()
        return state._replace(stamps=replaced(state.stamps, cell, worker.token)), worker._replace(at=following)

    def _holds(self, state: State, worker: Worker, home: int) -> bool:
        return state.stamps[self._cell(home)] == worker.token

    def _begin(self, state: State, worker: Worker) -> tuple[State, Worker]:
        if state.phase != READY or state.attempt != worker.attempt:
            return state, Worker()
        if not state.copied:
            return state, worker._replace(at="copy")
        epoch = state.epochs + 1
        after = state._replace(phase=CUTTING_OVER, move_epoch=epoch, epochs=epoch)
        return after, worker._replace(at="close_source", epoch=epoch)

    def _copy(self, state: State, worker: Worker) -> tuple[State, Worker] | None:
        if state.failover == PROMOTED:
            return None
        if not (self._holds(state, worker, SOURCE) and self._holds(state, worker, TARGET)):
            return state, Worker()
        after = state._replace(in_target=state.in_source, applied=len(state.log), applier=worker.token, copied=True)
        return after, worker._replace(at="begin")

    def _close_source(self, state: State, worker: Worker) -> tuple[State, Worker] | None:
        if self._is_shut_out(state, SOURCE):
            return None
        if not self._holds(state, worker, SOURCE):
            return state, Worker()
        row = state.rows[SOURCE]
        if row is None or row.epoch != FIRST_EPOCH or row.state != ACTIVE or row.attempt > worker.attempt:
            return state, worker._replace(at="abort")
        shut = row._replace(state=MOVING, attempt=worker.attempt)
        return self._with_row(state, SOURCE, shut), worker._replace(at="drain")

    def _drain(self, state: State, worker: Worker) -> tuple[State, Worker] | None:
        if self._is_shut_out(state, SOURCE):
            return None
        inside = [each for each in state.requests if each.at in {"locked", "inside"} and each.home == SOURCE]
        if inside and self._without != "lock":
            return None
        row = state.rows[SOURCE]
        if row is None or row.state != MOVING or row.attempt != worker.attempt:
            return state, worker._replace(at="abort")
        return state._replace(log=(*state.log, -worker.attempt)), worker._replace(at="apply")

    def _apply(self, state: State, worker: Worker) -> tuple[State, Worker] | None:
        if self._is_shut_out(state, TARGET) or -worker.attempt not in state.log:
            return None
        if state.applier != worker.token:
            return state, Worker()
        end = state.log.index(-worker.attempt) + 1
        if self._without == "marker":
            # What has been applied whenever somebody thought it was enough.
            end = state.applied
        arrived = frozenset(each for each in state.log[state.applied : end] if each > 0)
        after = state._replace(applied=max(end, state.applied), in_target=state.in_target | arrived)
        return after, worker._replace(at="open_target")

    def _open_target(self, state: State, worker: Worker) -> tuple[State, Worker] | None:
        if self._is_shut_out(state, TARGET):
            return None
        if not self._holds(state, worker, TARGET):
            return state, Worker()
        row = state.rows[self._cell(TARGET)]
        if self._same_cell:
            obeys = row is not None and row.attempt == worker.attempt and row.state == MOVING
        else:
            obeys = row is None or row.attempt <= worker.attempt
        if not obeys:
            return state, worker._replace(at="abort")
        opened = Row(worker.epoch, ACTIVE, worker.attempt, TARGET)
        return self._with_row(state, TARGET, opened), worker._replace(at="flip")

    def _flip(self, state: State, worker: Worker) -> tuple[State, Worker]:
        after = self._flipped(state, worker.attempt, worker.epoch)
        return after, worker._replace(at="retire_source") if after is not state else Worker()

    def _flipped(self, state: State, attempt: int, epoch: int) -> State:
        stands = state.phase == CUTTING_OVER and state.attempt == attempt
        if self._without == "compare at the flip":
            stands = True
        if not stands or state.epoch != FIRST_EPOCH:
            return state
        published = tuple(sorted({*state.published, (TARGET, epoch)}))
        return state._replace(home=TARGET, epoch=epoch, target_epoch=epoch, phase=RETAINING, published=published)

    def _retire_source(self, state: State, worker: Worker) -> tuple[State, Worker]:
        row = state.rows[SOURCE]
        if row is not None and row.epoch == FIRST_EPOCH:
            state = self._with_row(state, SOURCE, row._replace(state=MOVED))
        return state, worker._replace(at="complete")

    def _complete(self, state: State, worker: Worker) -> tuple[State, Worker] | None:
        if state.phase != RETAINING or state.attempt != worker.attempt:
            return state, Worker()
        if state.failover == PROMOTED:
            return None
        if not self._standby_has_heard(state) and self._without != "wait for the standby":
            return None
        if not self._is_open(state) and self._without != "require_home":
            return state._replace(phase=FAILED), Worker()
        return state._replace(phase=COMPLETED, log=()), Worker()

    def _shut_lost(self, state: State, worker: Worker) -> tuple[State, Worker] | None:
        if state.failover == PROMOTED:
            return None
        if not self._holds(state, worker, TARGET):
            return state, Worker()
        if self._is_let_in_there(state) and self._without != "look before the loss":
            return state, worker._replace(at="try_again")
        epoch = state.epochs + 1
        if self._without != "shut_lost":
            state = self._with_row(state, TARGET, Row(epoch, MOVED, worker.attempt, TARGET))
        return state._replace(epochs=epoch), worker._replace(at="open_kept", epoch=epoch)

    def _open_kept(self, state: State, worker: Worker) -> tuple[State, Worker]:
        if not self._holds(state, worker, SOURCE):
            return state, Worker()
        return self._with_row(state, SOURCE, Row(worker.epoch, ACTIVE, worker.attempt, SOURCE)), worker._replace(
            at="accept_loss"
        )

    def _accept_loss(self, state: State, worker: Worker) -> tuple[State, Worker]:
        if state.phase != FAILED or state.attempt != worker.attempt:
            return state, Worker()
        after = state._replace(
            home=SOURCE,
            epoch=worker.epoch,
            phase=WITHDRAWING,
            published=tuple(sorted({*state.published, (SOURCE, worker.epoch)})),
        )
        return after, worker._replace(at="withdraw")

    def _try_again(self, state: State, worker: Worker) -> tuple[State, Worker]:
        """An acceptance that died may have opened the kept home: it is shut first."""
        if state.phase != FAILED or state.attempt != worker.attempt:
            return state, Worker()
        if not self._holds(state, worker, SOURCE):
            return state, Worker()
        row = state.rows[SOURCE]
        if row is not None and self._without != "shut_kept":
            state = self._with_row(state, SOURCE, row._replace(state=MOVED))
        return state._replace(phase=RETAINING), worker._replace(at="retire_source")

    def _withdraw(self, state: State, worker: Worker) -> tuple[State, Worker] | None:
        if state.phase != WITHDRAWING or state.attempt != worker.attempt:
            return state, Worker()
        if not self._holds(state, worker, TARGET):
            return state, Worker()
        return state._replace(phase=ROLLED_BACK, in_target=frozenset()), Worker()

    def _standby_has_heard(self, state: State) -> bool:
        """One that has not would have nothing of the tenant."""
        if self._standby_of != TARGET or state.standby is None:
            return True
        return state.standby.row is not None and state.standby.row.epoch == state.epoch

    def _abort(self, state: State, worker: Worker) -> tuple[State, Worker]:
        if self._without == "abort first":
            return state, worker._replace(at="reopen_source")
        if state.phase != CUTTING_OVER or state.attempt != worker.attempt or state.attempts == self.bounds.attempts + 2:
            return state, Worker()
        number = state.attempts + 1
        after = state._replace(phase=READY, attempt=number, attempts=number)
        return after, worker._replace(at="reopen_source", attempt=number)

    def _reopen_source(self, state: State, worker: Worker) -> tuple[State, Worker] | None:
        if self._is_shut_out(state, SOURCE):
            return None
        if not self._holds(state, worker, SOURCE):
            return state, Worker()
        row = state.rows[self._cell(SOURCE)]
        if row is not None and (row.attempt < worker.attempt or self._without == "abort first"):
            state = self._with_row(state, SOURCE, Row(FIRST_EPOCH, ACTIVE, worker.attempt, SOURCE))
        return state, worker._replace(at="begin" if self._same_cell else "retire_target")

    def _retire_target(self, state: State, worker: Worker) -> tuple[State, Worker]:
        if not self._holds(state, worker, TARGET):
            return state, Worker()
        row = state.rows[TARGET]
        if row is not None and row.epoch == worker.epoch:
            state = self._with_row(state, TARGET, row._replace(state=MOVED))
        return state, worker._replace(at="begin", epoch=0)

    def _of_request(self, state: State, request: Request) -> Iterator[tuple[str, State, Request]]:
        match request.at:
            case "out":
                if state.writes < self.bounds.writes:
                    yield from self._coming(state)
            case "has read":
                yield "takes the lock", state, request._replace(at="inside")
            case "locked" if self._lets_in(state, request):
                yield "is let in", state, request._replace(at="inside")
            case "locked":
                yield "is turned away", state, Request()
            case _:
                yield "commits", self._written(state, request), Request()

    def _coming(self, state: State) -> Iterator[tuple[str, State, Request]]:
        for home, epoch in state.published:
            coming = Request("locked", home, epoch)
            if self._without != "lock before the row":
                yield f"takes the lock at epoch {epoch}", state, coming
            elif self._lets_in(state, coming):
                yield f"reads the row at epoch {epoch}", state, coming._replace(at="has read")

    def _lets_in(self, state: State, request: Request) -> bool:
        row = state.rows[self._cell(request.home)]
        if self._is_shut_out(state, request.home):
            return False
        return row is not None and row.state == ACTIVE and (row.epoch, row.home) == (request.epoch, request.home)

    def _written(self, state: State, request: Request) -> State:
        write = state.writes + 1
        state = state._replace(writes=write, acknowledged=state.acknowledged | {write})
        if request.home == SOURCE:
            return state._replace(log=(*state.log, write))
        return state._replace(in_target=state.in_target | {write})

    def _cell(self, home: int) -> int:
        return SOURCE if self._same_cell else home

    def _with_row(self, state: State, home: int, row: Row | None) -> State:
        return state._replace(rows=replaced(state.rows, self._cell(home), row))

    def broken(self, state: State) -> str | None:
        """What must never be."""
        open_homes = {
            row.home
            for row in state.rows
            if row is not None and row.state == ACTIVE and (row.home, row.epoch) in state.published
            if not self._is_shut_out(state, row.home)
        }
        inside = {each.home for each in state.requests if each.at == "inside"}
        if len(open_homes | inside) > 1:
            return "two homes accept writes"
        if not state.acknowledged <= self._kept(state):
            return "an acknowledged write is lost"
        return None

    def _kept(self, state: State) -> frozenset[int]:
        if state.home == SOURCE:
            return state.in_source
        # A home that was failed over may have nothing of the tenant; it then lets nobody in, and the old one is kept.
        closed = self._standby_of is not None and not self._is_open(state)
        return state.in_target | state.in_source if closed else state.in_target

    def _is_open(self, state: State) -> bool:
        """The tenant is let in where the catalog says it is."""
        return self._lets_in(state, Request("locked", state.home, state.epoch))

    def is_good(self, state: State) -> bool:
        """It is open, or a person has been told why it cannot be."""
        return self._is_open(state)

    def must_get_on(self, state: State) -> bool:
        """Wherever a worker may still come (the bound on attempts is the model's, not the protocol's), or none has to."""
        return state.attempts < self.bounds.attempts or state.phase in {COMPLETED, ROLLED_BACK}


def replaced(items: tuple, index: int, item: object) -> tuple:  # type: ignore[type-arg]
    return (*items[:index], item, *items[index + 1 :])
