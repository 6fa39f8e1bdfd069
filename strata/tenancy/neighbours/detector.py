"""Tells, window by window, which tenant loads a cell out of its habit, and whether it, one other or everyone is hurt.

Of each tenant two series are watched: its load (database time per second: how many connections it keeps busy) and the time
a statement of its takes, waiting included. Each is compared with its own recent past by a robust score, (value - median) /
(spread + floor), over the last `_REMEMBERED` windows without alarm; scores are summed up by a one-sided CUSUM, which a
single spike cannot raise over the threshold and a shift of some seconds does. The spread is the larger of 1.4826 MAD and what
the 95th percentile says: by the MAD alone, real invoices raised seven false alarms an hour. A tenant is *noisy* only if besides it takes
at least `_LEAST_SHARE` of the cell's database time and keeps `_LEAST_LOAD` of a connection busy: what is unusual and small
hurts nobody. Rates of false alarms: docs/neighbours.md, held by tests/unit/tenancy/test_detector.py and
tests/integration/tenancy/test_neighbours_replayed.py.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from statistics import median
from uuid import UUID

import msgspec

_REMEMBERED = 60
_LEAST_REMEMBERED = 15
_RECKONED_EVERY = 5
_CAP, _ALARM = 6.0, 12.0
_JUDGED = 10
_HIGH, _HIGH_TO_SIGMA = 0.95, 1.645
_LEAST_SHARE, _LEAST_LOAD = 0.4, 0.25
_MOST_TENANTS = 500
_MANY = 3
_MAD_TO_SIGMA = 1.4826


class Verdict(StrEnum):
    NOISY = "noisy"
    """One tenant takes far more than usual; nobody else is slower yet."""
    HURTS_OTHERS = "hurts-others"
    """It does, and its neighbours' statements take longer."""
    SUFFERS_ALONE = "suffers-alone"
    """One tenant's statements take longer, nobody else's: its own trouble."""
    EVERYONE = "everyone"
    """Most tenants' statements take longer and nobody stands out: the cell itself."""


class Sample(msgspec.Struct, frozen=True):
    """One tenant in one window."""

    load: float
    """Database seconds per second."""
    statements: int
    statement_s: float
    """Mean, waiting for connections included; 0 without statements."""


class Found(msgspec.Struct, frozen=True):
    verdict: Verdict
    tenant_id: UUID | None
    """None: everyone."""
    share: float
    load: float
    slower: float
    """How many times longer than usual statements take, of whoever is hurt; 1: as usual."""


class Series:
    """One figure's recent past, and how far it has strayed from it."""

    __slots__ = ("_floor", "_least", "_middle", "_slack", "_spread", "_stale", "_waiting", "past", "strayed")

    def __init__(self, *, floor: float, least: float, slack: float) -> None:
        self.past: deque[float] = deque(maxlen=_REMEMBERED)
        self.strayed = 0.0
        self._waiting: deque[float] = deque()
        self._floor = floor
        self._least = least
        self._slack = slack
        self._middle = self._spread = 0.0
        self._stale = 0

    @property
    def alarmed(self) -> bool:
        return self.strayed >= _ALARM

    def add(self, value: float) -> None:
        if len(self.past) < _LEAST_REMEMBERED:
            self.past.append(value)
            return
        if not self._stale:
            self._reckon()
        # A habit does not change from one window to the next, and sorting is what this costs.
        self._stale = (self._stale + 1) % _RECKONED_EVERY
        score = (value - self._middle) / (self._spread + self._floor * self._middle + self._least)
        self.strayed = min(max(0.0, self.strayed + min(score, _CAP) - self._slack), 2 * _ALARM)
        self._learn(value)

    def _learn(self, value: float) -> None:
        """What is being judged must not become the habit it is judged by, so it waits until it can be part of no alarm any
        more. A spike that raised none is habit too: whoever forgets the spikes is surprised by every one.
        """
        if self.alarmed:
            self._waiting.clear()
            return
        self._waiting.append(value)
        if len(self._waiting) > _JUDGED:
            self.past.append(self._waiting.popleft())

    def _reckon(self) -> None:
        past = sorted(self.past)
        self._middle = middle = median(past)
        usual = _MAD_TO_SIGMA * median(abs(each - middle) for each in past)
        # Real loads are lopsided: nothing, small orders, a huge one. Half of all windows do not tell how huge.
        high = (past[int(_HIGH * (len(past) - 1))] - middle) / _HIGH_TO_SIGMA
        self._spread = max(usual, high)

    def usual(self) -> float:
        return median(self.past) if self.past else 0.0


class _Watched:
    __slots__ = ("load", "pace", "quiet")

    def __init__(self) -> None:
        self.load = Series(floor=0.15, least=0.03, slack=3.0)
        # Of logarithms: twice as slow is as far off for a short statement as for a long one.
        self.pace = Series(floor=0.0, least=0.12, slack=1.2)
        self.quiet = 0


class Detector:
    """Of one cell."""

    def __init__(self) -> None:
        self._tenants: dict[UUID, _Watched] = {}

    def window(self, samples: Mapping[UUID, Sample]) -> list[Found]:
        """What is so at the end of this window; to be called at even distances, with everybody who did anything."""
        self._learn(samples)
        total = sum(sample.load for sample in samples.values())
        hurt = [each for each, watched in self._tenants.items() if watched.pace.alarmed and each in samples]
        noisy = [
            each
            for each, sample in samples.items()
            if each in self._tenants
            and self._tenants[each].load.alarmed
            and sample.load >= max(_LEAST_LOAD, _LEAST_SHARE * total)
        ]
        if noisy:
            return [self._noisy(each, samples, total, [one for one in hurt if one != each]) for each in noisy]
        active = [each for each, sample in samples.items() if sample.statements]
        if len(hurt) >= max(_MANY, len(active) / 2):
            slower = median(self._slower(each, samples[each]) for each in hurt)
            return [Found(Verdict.EVERYONE, None, 1.0, total, slower)]
        # Two of many are two with troubles of their own.
        return [
            Found(
                Verdict.SUFFERS_ALONE,
                each,
                samples[each].load / total if total else 0.0,
                samples[each].load,
                self._slower(each, samples[each]),
            )
            for each in hurt
        ]

    def _learn(self, samples: Mapping[UUID, Sample]) -> None:
        for each in samples:
            if each not in self._tenants and len(self._tenants) < _MOST_TENANTS:
                self._tenants[each] = _Watched()
        common = self._common_slowness(samples)
        for each, watched in list(self._tenants.items()):
            sample = samples.get(each)
            # When all statements take longer, everybody keeps more connections busy with the same work.
            watched.load.add(sample.load / common if sample is not None else 0.0)
            if sample is not None and sample.statements:
                watched.pace.add(math.log(max(sample.statement_s, 1e-6)))
            watched.quiet = 0 if sample is not None else watched.quiet + 1
            if watched.quiet > _REMEMBERED:
                del self._tenants[each]

    def _common_slowness(self, samples: Mapping[UUID, Sample]) -> float:
        known = [
            self._slower(each, sample)
            for each, sample in samples.items()
            if sample.statements and each in self._tenants and self._tenants[each].pace.past
        ]
        return median(known) if len(known) >= _MANY else 1.0

    def _noisy(self, each: UUID, samples: Mapping[UUID, Sample], total: float, hurt: list[UUID]) -> Found:
        verdict = Verdict.HURTS_OTHERS if hurt else Verdict.NOISY
        slower = median(self._slower(one, samples[one]) for one in hurt) if hurt else 1.0
        return Found(verdict, each, samples[each].load / total, samples[each].load, slower)

    def _slower(self, each: UUID, sample: Sample) -> float:
        return max(1.0, sample.statement_s / math.exp(self._tenants[each].pace.usual()))
