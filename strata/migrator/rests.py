"""Rests within a query that reads many rows: every so many of them it sleeps, so that it is done in pieces.

Between two queries would be too late: who waits for a processor waits for the piece that is being worked on, and a range
of rows takes some hundred milliseconds. A target that is fed from such a query rests with it.
"""

from __future__ import annotations

from collections.abc import Callable

_NAP_S = 0.002
_FIRST_GUESS_S = 5e-6
_WEIGHT = 0.5


class Rests:
    """Of one session. `rest_s`: how long to rest after work that took so long, in seconds."""

    def __init__(self, rest_s: Callable[[float], float]) -> None:
        self._rest_s = rest_s
        self._row_s = _FIRST_GUESS_S
        """What a row takes, without rests."""

    @property
    def condition(self) -> str:
        """To be added to a WHERE: true for every row. Empty when no rest is due."""
        often = min(1.0, self._rest_s(self._row_s) / _NAP_S)
        return f" AND (random() > {often:.9f} OR pg_sleep({_NAP_S}) IS NOT NULL)" if often > 0 else ""

    def lasted(self, seconds: float, rows: int) -> None:
        """What a query for `rows` took, with the rests in it."""
        if rows and seconds > 0:
            worked = self._row_s / (self._row_s + self._rest_s(self._row_s))
            self._row_s += (seconds * worked / rows - self._row_s) * _WEIGHT
