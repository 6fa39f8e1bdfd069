"""Looks at a cell's standbys every second: which answer, how far they are, and whose lease is to be renewed.

Every process that reads from standbys does it for the cells it reads; whoever comes second in a second renews nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import asyncpg
import structlog

from strata.platform.database.addresses import libpq
from strata.platform.database.failures import NO_ANSWER
from strata.platform.database.lsn import Lsn, parse_lsn
from strata.tenancy.replicas.lease import MARGIN_S

if TYPE_CHECKING:
    from sqlalchemy import URL

    from strata.tenancy.replicas.register import Registration

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
_AGAIN_FOR_A_NEW_LEASE_S = 0.1
_ANSWER_WITHIN_S = 0.8
_SHUNNED_S = 0.25
_LAGGING_S = 0.05

_STATE = """
SELECT pg_is_in_recovery() AS standby, pg_last_wal_replay_lsn()::text AS replayed,
       extract(epoch FROM clock_timestamp())::float8 AS now,
       EXISTS (SELECT FROM strata.standby_lease WHERE standby = $1 AND leased_until > clock_timestamp()) AS leased
"""
_NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"
_LEASE = "SELECT strata.lease_standbys($1)"


class Ended(Protocol):
    """A connection that can be ended without being asked."""

    def terminate(self) -> None: ...


class Standby:
    """What this process last saw of one standby, for one cell."""

    __slots__ = ("_lagging_until", "_shunned_until", "entered", "id", "in_use", "leased", "name", "replayed", "up")

    def __init__(self, registration: Registration) -> None:
        self.id = registration.id
        self.name = registration.name
        self.up = False
        self.leased = False
        self.replayed = Lsn(0)
        self.in_use: set[Ended] = set()
        self.entered = 0
        """How many readers it has let in."""
        self._shunned_until = self._lagging_until = 0.0

    @property
    def usable(self) -> bool:
        return self.up and self.leased and time.monotonic() >= self._shunned_until

    def may_have(self, position: Lsn) -> bool:
        return position <= self.replayed or time.monotonic() >= self._lagging_until

    def shun(self) -> None:
        """It refused a reader: whoever comes in the next moments need not ask."""
        self._shunned_until = time.monotonic() + _SHUNNED_S

    def lags(self) -> None:
        """It had not replayed what a reader had written: others who have just written need not ask."""
        self._lagging_until = time.monotonic() + _LAGGING_S

    def lose(self) -> None:
        """It does not answer. Readers on it would wait as long as the network does: they learn it now."""
        if self.up:
            log.warning("standby.lost", standby=self.name)
        self.up = self.leased = False
        for connection in list(self.in_use):
            connection.terminate()


class _Line:
    """An administrator's connection, made when needed and made anew after a failure."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._connection: asyncpg.Connection | None = None

    async def row(self, query: str, *arguments: object) -> Any:  # noqa: ANN401 - asyncpg's record
        """Raises one of NO_ANSWER."""
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                if self._connection is None:
                    self._connection = await asyncpg.connect(libpq(self._url), statement_cache_size=0)
                return await self._connection.fetchrow(query, *arguments)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


class CellWatch:
    def __init__(self, cell: str, primary: URL) -> None:
        self.cell = cell
        self.standbys: dict[UUID, Standby] = {}
        self._primary = _Line(primary)
        self._lines: dict[UUID, _Line] = {}

    def follow(self, registrations: list[Registration]) -> None:
        """Take up who has been registered, let go who has been removed."""
        wanted = {each.id: each for each in registrations}
        for gone in self.standbys.keys() - wanted.keys():
            self._lines.pop(gone).close()
            self.standbys.pop(gone).up = False
        for new in wanted.keys() - self.standbys.keys():
            self.standbys[new] = Standby(wanted[new])
            self._lines[new] = _Line(wanted[new].url)

    async def look(self) -> float:
        """One round; returns in how many seconds the next is due."""
        seen = await asyncio.gather(*(self._see(standby) for standby in list(self.standbys.values())))
        asked_at = time.monotonic()
        try:
            now = (await self._primary.row(_NOW))[0]
            in_time = [
                standby for standby, ahead in seen if ahead is not None and _behind(now, asked_at, ahead) <= MARGIN_S
            ]
            if in_time:
                await self._primary.row(_LEASE, [standby.id for standby in in_time])
        except NO_ANSWER as error:
            # Without the primary there are no leases: what the standbys hold grows old.
            log.warning("standby.not_leased", cell=self.cell, error=f"{type(error).__name__}: {error}")
            return LOOK_EVERY_S
        return LOOK_EVERY_S if all(standby.leased for standby in in_time) else _AGAIN_FOR_A_NEW_LEASE_S

    def close(self) -> None:
        self._primary.close()
        for line in self._lines.values():
            line.close()
        for standby in self.standbys.values():
            standby.up = False

    async def _see(self, standby: Standby) -> tuple[Standby, tuple[float, float] | None]:
        """With the standby's clock and the moment of ours at which it had been read; None: it does not serve."""
        line = self._lines[standby.id]
        try:
            state = await line.row(_STATE, standby.id)
        except NO_ANSWER:
            standby.lose()
            return standby, None
        if not state["standby"] or state["replayed"] is None:
            standby.lose()
            return standby, None
        standby.up, standby.leased = True, state["leased"]
        standby.replayed = parse_lsn(state["replayed"])
        return standby, (state["now"], time.monotonic())


def _behind(primary_now: float, asked_at: float, standby_read: tuple[float, float]) -> float:
    """The most by which the standby's clock can be behind, whatever time the answers took on their way."""
    standby_now, read_at = standby_read
    return primary_now - standby_now - (asked_at - read_at)
