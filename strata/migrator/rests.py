"""Rests within a query that reads many rows: every so many of them it sleeps, so that it is done in pieces.

Between two queries would be too late: who waits for a processor waits for the piece that is being worked on, and a range
of rows takes some hundred milliseconds. A target that is fed from such a query rests with it.

How long it has slept the session counts itself, in a setting. Of a query that rests for a multiple of its work, even what
naps last too long (where somebody waits for a processor, so does who wakes) is more than the work: taken for work, it would
make for longer rests, and these for more of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncpg

_NAP_S = 0.002
_FIRST_GUESS_S = 5e-6
_TOO_FEW_ROWS = 200
"""What so few take is mostly the way there and back."""
_MANY_ROWS = 1000
"""What these have taken and what was known before count the same."""
_RESTED = "coalesce(nullif(current_setting('strata.rested', true), '')::float8, 0)"


def _count(sign: str) -> str:
    """The clock is taken off before a nap and added after it."""
    now = "extract(epoch FROM clock_timestamp())::float8"
    return f"set_config('strata.rested', ({_RESTED} {sign} {now})::text, false) IS NOT NULL"


class Rests:
    """Of one session. `rest_s`: how long to rest after work that took so long, in seconds."""

    def __init__(self, rest_s: Callable[[float], float]) -> None:
        self._rest_s = rest_s
        self._row_s = _FIRST_GUESS_S
        """What a row takes, without rests."""
        self._rested_s = 0.0

    @property
    def condition(self) -> str:
        """To be added to a WHERE: true for every row. Empty when no rest is due."""
        often = min(1.0, self._rest_s(self._row_s) / _NAP_S)
        if often <= 0:
            return ""
        nap = f"{_count('-')} AND pg_sleep({_NAP_S}) IS NOT NULL AND {_count('+')}"
        return f" AND CASE WHEN random() > {often:.9f} THEN true ELSE {nap} END"

    async def lasted(self, connection: asyncpg.Connection, seconds: float, rows: int) -> None:
        """What a query for `rows` took on the session, with the rests in it."""
        rested_s: float = await connection.fetchval(f"SELECT {_RESTED}")
        worked_s = seconds - (rested_s - self._rested_s)
        self._rested_s = rested_s
        self.learn(worked_s, rows)

    def learn(self, worked_s: float, rows: int) -> None:
        if rows >= _TOO_FEW_ROWS:
            self._row_s += (max(worked_s, 0.0) / rows - self._row_s) * rows / (rows + _MANY_ROWS)
