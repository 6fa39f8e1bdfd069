"""How fast a worker may post batches, so that the neighbours of an import do not feel it.

A batch makes whoever wants the cell meanwhile wait about twice as long, however small it is: the machine's cores are shared.
So what a neighbour's 99th percentile shows is the share of the time in which batches are posted. Where others work in the
cell it is kept well below a hundredth; where nobody does there is nobody to wait, and the import goes on at speed.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from uuid import UUID

import msgspec

from strata.platform.settings import ImportSettings

_MOST_TENANTS = 1000
_WINDOW_S = 2.0
"""PostgreSQL counts what a session has done a second later, at times."""
_OF_A_BATCH = 12
"""Transactions that a batch itself brings about: its own, and the relay's and the consumers' of its events."""
_STIR_PER_S = 10.0
"""So few are the standing jobs', the relay's looks and the pools'."""
_LONGEST_PAUSE_S = 20.0


class _Tempo(msgspec.Struct):
    looked_at: float
    transactions: int
    batches: int = 0
    busy: bool | None = None
    """None: nobody has looked for long enough."""


class ImportPace:
    """Tells from the cell's count of transactions whether others work there, and how long to leave it to them."""

    def __init__(self, settings: ImportSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._tempos: OrderedDict[UUID, _Tempo] = OrderedDict()

    def pause_s(self, tenant_id: UUID, *, worked_s: float, transactions: int) -> float:
        """After a batch that took `worked_s`. `transactions`: how many the tenant's database has seen so far."""
        now = self._clock()
        tempo = self._tempos.get(tenant_id)
        if tempo is None or transactions < tempo.transactions:
            # New here, or the tenant has moved: another database counts for itself.
            tempo = self._tempos[tenant_id] = _Tempo(now, transactions)
        self._tempos.move_to_end(tenant_id)
        if len(self._tempos) > _MOST_TENANTS:
            self._tempos.popitem(last=False)
        tempo.batches += 1
        elapsed_s = now - tempo.looked_at
        if elapsed_s >= _WINDOW_S:
            of_others = transactions - tempo.transactions - tempo.batches * _OF_A_BATCH
            busy = of_others > elapsed_s * _STIR_PER_S
            self._tempos[tenant_id] = tempo = _Tempo(now, transactions, busy=busy)
        share = self._settings.most_share if tempo.busy is False else self._settings.least_share
        return min(worked_s * (1 / share - 1), _WINDOW_S if tempo.busy is None else _LONGEST_PAUSE_S)
