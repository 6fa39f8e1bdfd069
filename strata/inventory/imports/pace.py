"""How fast a worker may post batches, so that the neighbours of an import do not feel it."""

from __future__ import annotations

from collections import OrderedDict
from uuid import UUID

import msgspec

from strata.platform.settings import ImportSettings

_MOST_TENANTS = 1000
_FASTER, _SLOWER = 1.1, 0.8
_BUSY = 2.0
"""So many times its usual time, and the way into the cell is crowded."""
_SMOOTH = 0.3
"""The weight of the last time in: one slow one says nothing."""
_FORGET = 0.02
"""How far the usual time moves towards a slower one with each batch: what was quick once need not stay so."""
_LONGEST_PAUSE_S = 2.0


class _Tempo(msgspec.Struct):
    share: float
    usual_s: float
    recent_s: float


class ImportPace:
    """Adapts the share of the time in which a tenant's import works.

    What it goes by is how long it takes to get into the tenant's transaction and lock one row there: the same work every
    time, so when it takes longer, others want the cell. Then the share falls by a fifth; else it creeps up again.
    """

    def __init__(self, settings: ImportSettings) -> None:
        self._settings = settings
        self._tempos: OrderedDict[UUID, _Tempo] = OrderedDict()

    def pause_s(self, tenant_id: UUID, *, entered_s: float, worked_s: float) -> float:
        """After a batch: how long to leave the cell to the others."""
        tempo = self._tempos.get(tenant_id)
        if tempo is None:
            tempo = self._tempos[tenant_id] = _Tempo(self._settings.most_share, entered_s, entered_s)
        self._tempos.move_to_end(tenant_id)
        if len(self._tempos) > _MOST_TENANTS:
            self._tempos.popitem(last=False)
        self._adapt(tempo, entered_s)
        return min(worked_s * (1 / tempo.share - 1), _LONGEST_PAUSE_S)

    def _adapt(self, tempo: _Tempo, entered_s: float) -> None:
        tempo.recent_s += (entered_s - tempo.recent_s) * _SMOOTH
        factor = _SLOWER if tempo.recent_s > tempo.usual_s * _BUSY else _FASTER
        tempo.share = min(max(tempo.share * factor, self._settings.least_share), self._settings.most_share)
        tempo.usual_s = min(entered_s, tempo.usual_s + (entered_s - tempo.usual_s) * _FORGET)
