"""The detector on replayed loads: the invoices of a real month, of many shops, compressed in time."""

from __future__ import annotations

from uuid import UUID

import pytest

from strata.tenancy.neighbours.detector import Detector, Sample, Verdict
from tests.builders.imports import needs_online_retail
from tests.builders.retail_traffic import SHOPS, TENANTS, RetailCell

pytestmark = needs_online_retail

WINDOW_S = 2.0
# A finding ends when nobody has seen it for this long (NeighbourBook): what comes back sooner is the same one.
ENDED_AFTER_S = 20.0


class Tally:
    """What a detector found on ordinary days, all of it false."""

    def __init__(self) -> None:
        self.windows = 0
        self.trading = 0
        self.findings = 0
        self._seen: dict[tuple[int, Verdict, UUID | None], int] = {}

    def day(self, seed: int, cell: RetailCell, detector: Detector) -> None:
        for samples in cell.day():
            self.windows += 1
            # Nights would make the rate look better than it is.
            self.trading += bool(samples)
            for found in detector.window(samples):
                key = (seed, found.verdict, found.tenant_id)
                before = self._seen.get(key)
                self.findings += before is None or (self.windows - before) * WINDOW_S > ENDED_AFTER_S
                self._seen[key] = self.windows

    @property
    def hours(self) -> float:
        return self.trading * WINDOW_S / 3600


def replayed(*, faster: float, seeds: int, days: int) -> Tally:
    tally = Tally()
    for seed in range(seeds):
        cell, detector = RetailCell(seed, faster=faster, window_s=WINDOW_S), Detector()
        for _ in range(days):
            tally.day(seed, cell, detector)
    return tally


def test_false_alarms_on_real_invoices_are_as_rare_as_stated() -> None:
    """docs/neighbours.md: fewer than one in ten hours of trade; ten times as fast as it was, one window is 20 seconds."""
    tally = replayed(faster=10, seeds=4, days=20)
    assert tally.hours > 60
    assert tally.findings / tally.hours < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("faster", "seeds", "days"), [(1, 4, 10), (10, 10, 20), (60, 20, 60)])
def test_the_rate_at_each_pace(faster: float, seeds: int, days: int) -> None:
    """The table in docs/neighbours.md; with so many hours the bound holds with 95 % confidence."""
    tally = replayed(faster=faster, seeds=seeds, days=days)
    print(f"{faster} times: {tally.findings} findings in {tally.hours:.0f} hours of trade")  # noqa: T201 - for the docs
    assert tally.findings / tally.hours < 0.1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tenant", [SHOPS.index(4), SHOPS.index(32)], ids=["small", "largest"])
def test_a_runaway_among_real_invoices_is_found_within_ten_seconds(seed: int, tenant: int) -> None:
    cell, detector, loud = RetailCell(seed, faster=10, window_s=WINDOW_S), Detector(), TENANTS[tenant]
    windows = list(cell.day())
    afternoon = len(windows) * 14 // 24
    for samples in windows[:afternoon]:
        detector.window(samples)
    busiest = max(sum(each.load for each in samples.values()) for samples in windows[:afternoon])
    found: list[tuple[Verdict, UUID | None]] = []
    for samples in windows[afternoon : afternoon + 5]:
        runaway = {**samples, loud: Sample(2 * busiest, 40, 2 * busiest * WINDOW_S / 40)}
        found += [(each.verdict, each.tenant_id) for each in detector.window(runaway)]
    # Its own statements are slow, which may be seen first.
    assert found[-1] == (Verdict.NOISY, loud)
    assert {accused for _, accused in found} == {loud}
