"""A circuit breaker: a cell that does not answer is asked again now and then, not by every request."""

from __future__ import annotations

import time
from collections.abc import Callable

_FAILURES_TO_OPEN = 3
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 5.0


class Breaker:
    """Closed: everybody connects. Open: nobody does, for a pause that doubles. Then one tries, and decides.

    Only connecting counts. A query that fails says nothing about the cell.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._pause_s = _FIRST_PAUSE_S
        self._closed_again_at = 0.0
        self._one_is_trying = False

    @property
    def is_open(self) -> bool:
        return self._failures >= _FAILURES_TO_OPEN

    def lets_through(self) -> bool:
        """Whether the caller may connect; who may must tell the outcome by `succeeded`, `failed` or `undecided`."""
        if not self.is_open:
            return True
        if self._one_is_trying or self._clock() < self._closed_again_at:
            return False
        self._one_is_trying = True
        return True

    def succeeded(self) -> None:
        self._failures = 0
        self._pause_s = _FIRST_PAUSE_S
        self._one_is_trying = False

    def failed(self) -> None:
        if self.is_open and not self._one_is_trying:
            # Of those that were let through together with the third: its pause is theirs too.
            return
        self._failures += 1
        self._one_is_trying = False
        if self.is_open:
            self._closed_again_at = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def undecided(self) -> None:
        """The try ended for a reason of the caller's own."""
        self._one_is_trying = False
