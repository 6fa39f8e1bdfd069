"""Counts in the process, on the way of every request and statement: some attribute increments, no I/O, no lock.

Everything here only ever rises; who reports it remembers what was reported. So nothing is lost or counted twice between
two readers, and a fraction of a millisecond is carried on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from uuid import UUID

from strata.tenancy.cell.spending import Spent
from strata.tenancy.usage.statements import SLOW_NS, SlowStatements

_MOST_SEEN = 100_000


class Tally:
    """What a tenant's requests have come to in this process."""

    __slots__ = ("api_calls", "bytes_in", "bytes_out", "compute_ns", "refused", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.api_calls = 0
        self.refused = 0
        self.compute_ns = 0
        self.bytes_in = 0
        self.bytes_out = 0


class Load:
    """What a tenant's transactions have come to in one cell, as this process saw it."""

    __slots__ = ("database_ns", "rows", "statements", "transactions", "wait_ns", "waits")

    def __init__(self) -> None:
        self.transactions = 0
        self.statements = 0
        self.rows = 0
        self.database_ns = 0
        self.waits = 0
        """How often a connection had to be waited for."""
        self.wait_ns = 0


class UsageMeter:
    """One per process."""

    def __init__(self) -> None:
        self.tallies: dict[UUID, Tally] = {}
        self.loads: dict[tuple[str, UUID], Load] = {}
        """By cell and tenant."""
        self.new_users: set[tuple[UUID, bytes]] = set()
        self._seen: set[tuple[UUID, str]] = set()
        self.slow = SlowStatements()
        self.on_use: list[Callable[[], None]] = []
        """Called when somebody is counted for the first time: there is something to report from now on."""

    def tally(self, tenant_id: UUID) -> Tally:
        return self.tallies.get(tenant_id) or self._new_tally(tenant_id)

    def spent(self, cell: str, tenant_id: UUID, spent: Spent, waited_ns: int) -> None:
        """What a transaction has come to."""
        load = self.loads.get((cell, tenant_id)) or self._new_load(cell, tenant_id)
        load.transactions += 1
        load.statements += spent.statements
        load.rows += spent.rows
        load.database_ns += spent.database_ns
        if waited_ns:
            load.waits += 1
            load.wait_ns += waited_ns
        if spent.database_ns >= SLOW_NS:
            self.slow.note(tenant_id, spent.by_statement)

    def saw(self, tenant_id: UUID, subject: str) -> None:
        if (tenant_id, subject) not in self._seen:
            self._note(tenant_id, subject)

    def begin_period(self) -> None:
        """Whoever was active before is active anew."""
        self._seen.clear()

    def _note(self, tenant_id: UUID, subject: str) -> None:
        if len(self._seen) >= _MOST_SEEN:
            # They are reported again, which changes nothing.
            self._seen.clear()
        self._seen.add((tenant_id, subject))
        self.new_users.add((tenant_id, digest_of(tenant_id, subject)))

    def _new_tally(self, tenant_id: UUID) -> Tally:
        made = self.tallies[tenant_id] = Tally()
        for begin in self.on_use:
            begin()
        return made

    def _new_load(self, cell: str, tenant_id: UUID) -> Load:
        made = self.loads[cell, tenant_id] = Load()
        for begin in self.on_use:
            begin()
        return made


def digest_of(tenant_id: UUID, subject: str) -> bytes:
    return hashlib.blake2b(subject.encode(), key=tenant_id.bytes, digest_size=16).digest()
