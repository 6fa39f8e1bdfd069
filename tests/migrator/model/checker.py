"""A small explicit-state checker: every state that can be reached, in breadth, so that a counterexample is a shortest one."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

S = TypeVar("S", bound=Hashable)


class Model(Protocol[S]):
    def initial(self) -> S: ...

    def steps(self, state: S) -> Iterable[tuple[str, S]]:
        """What can happen next: an action's name, and the state after it."""

    def broken(self, state: S) -> str | None:
        """What of the things that must never be is the case."""

    def is_good(self, state: S) -> bool: ...

    def must_get_on(self, state: S) -> bool:
        """Whether a good state must be in reach from here."""


class Found(msgspec.Struct, Generic[S], frozen=True):
    states: int
    steps: int
    broken: str | None = None
    """The first property that does not hold, with `trace`: the actions that lead to where it does not."""
    trace: tuple[str, ...] = ()


class TooManyStatesError(Exception):
    pass


def explore(model: Model[S], *, most_states: int) -> Found[S]:
    """Explore everything, to the first state that is broken; then see that there is a way on from everywhere."""
    initial = model.initial()
    came_from: dict[S, tuple[S, str] | None] = {initial: None}
    before: dict[S, list[S]] = {}
    queue = deque([initial])
    taken = 0
    while queue:
        state = queue.popleft()
        if (what := model.broken(state)) is not None:
            return Found(len(came_from), taken, what, _trace(came_from, state))
        for label, following in model.steps(state):
            taken += 1
            before.setdefault(following, []).append(state)
            if following not in came_from:
                came_from[following] = (state, label)
                queue.append(following)
        if len(came_from) > most_states:
            raise TooManyStatesError(most_states)
    for state in came_from.keys() - _getting_on(model, came_from, before):
        if model.must_get_on(state):
            return Found(len(came_from), taken, "no way on", _trace(came_from, state))
    return Found(len(came_from), taken)


def _getting_on(model: Model[S], states: Iterable[S], before: Mapping[S, Sequence[S]]) -> set[S]:
    """The states from which a good one can be reached."""
    found = {state for state in states if model.is_good(state)}
    queue = deque(found)
    while queue:
        for earlier in before.get(queue.popleft(), ()):
            if earlier not in found:
                found.add(earlier)
                queue.append(earlier)
    return found


def _trace(came_from: dict[S, tuple[S, str] | None], state: S) -> tuple[str, ...]:
    labels = []
    while (step := came_from[state]) is not None:
        state, label = step
        labels.append(label)
    return tuple(reversed(labels))
