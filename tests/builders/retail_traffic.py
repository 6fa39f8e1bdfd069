"""A cell of many shops at which the invoices of a real month arrive (tests/builders/imports.py says from where)."""

from __future__ import annotations

import csv
import gzip
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from uuid import UUID

from strata.tenancy.neighbours.detector import Sample
from tests.builders.imports import ONLINE_RETAIL

DAY_S = 24 * 3600
# A tenant of 32 has 32 such shops. The largest have two thirds of the cell, which is what makes anybody stand out.
SHOPS = (1, 1, 2, 2, 3, 4, 6, 8, 12, 16, 24, 32)
TENANTS = [UUID(int=number + 1) for number in range(len(SHOPS))]
# Statements vary by this much about their mean, as in the simulated loads.
_VARIANCE = 1.44


@cache
def recorded_days() -> list[list[tuple[int, int]]]:
    """Of each day on which there was trade: (second of the day, lines) of each invoice. The file knows minutes only."""
    lines: Counter[tuple[str, datetime]] = Counter()
    with gzip.open(ONLINE_RETAIL, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            lines[row["InvoiceNo"], datetime.fromisoformat(row["InvoiceDate"])] += 1
    days: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for (_, at), count in lines.items():
        days[at.day].append((at.hour * 3600 + at.minute * 60, count))
    return list(days.values())


class RetailCell:
    """Each shop of each tenant goes through recorded days, `faster` times as fast, in an order of its own: all open in the
    morning and are busiest in the afternoon, and an invoice of 675 lines comes when it comes. Of an invoice every line is looked
    up by a statement, and one more posts it, which takes longer the longer the invoice is.
    """

    def __init__(self, seed: int, *, faster: float, window_s: float) -> None:
        self._random = random.Random(seed)
        self._service_s = [math.exp(self._random.gauss(-5.5, 0.6)) for _ in SHOPS]
        self._faster = faster
        self._window_s = window_s

    def day(self) -> Iterator[dict[UUID, Sample]]:
        """Window by window, from midnight to midnight; whoever does nothing in it is not there."""
        windows: list[dict[int, tuple[int, float]]] = [{} for _ in range(int(DAY_S / self._faster / self._window_s))]
        for tenant, shops in enumerate(SHOPS):
            for _ in range(shops):
                for at_s, lines in self._random.choice(recorded_days()):
                    within = int((at_s + self._random.uniform(0, 60)) / self._faster / self._window_s)
                    statements, busy_s = windows[within].get(tenant, (0, 0.0))
                    windows[within][tenant] = (statements + lines + 1, busy_s + self._took_s(tenant, lines))
        for window in windows:
            yield {
                TENANTS[tenant]: Sample(busy_s / self._window_s, statements, busy_s / statements)
                for tenant, (statements, busy_s) in window.items()
            }

    def _took_s(self, tenant: int, lines: int) -> float:
        spread = _VARIANCE / lines
        looked_up = lines * self._random.gammavariate(1 / spread, spread)
        posted = 1 + 0.05 * lines
        return self._service_s[tenant] * (looked_up + posted)
