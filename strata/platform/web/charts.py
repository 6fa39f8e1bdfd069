"""Bar charts as SVG within the page: no script, colours of the brand, the same numbers in a table for who cannot see them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import msgspec

_WIDTH, _HEIGHT, _GAP = 620.0, 120.0, 0.25
_STEPS = (1, 2, 5, 10)


class Bar(msgspec.Struct, frozen=True):
    label: str
    amount: int
    shown: str
    x: float
    y: float
    width: float
    height: float


class Chart(msgspec.Struct, frozen=True):
    name: str
    """Unique on the page."""
    title: str
    total: str
    top: str
    """What the upper edge stands for."""
    bars: list[Bar]
    width: float = _WIDTH
    height: float = _HEIGHT

    @property
    def highest(self) -> Bar:
        return max(self.bars, key=lambda bar: bar.amount)

    @property
    def empty(self) -> bool:
        return not any(bar.amount for bar in self.bars)


def bar_chart(name: str, title: str, days: Sequence[tuple[date, int]], *, unit: str, total: int) -> Chart:
    top = _round_up(max((amount for _, amount in days), default=0))
    step = _WIDTH / max(1, len(days))
    bars = []
    for number, (day, amount) in enumerate(days):
        height = round(_HEIGHT * amount / top, 1)
        bars.append(
            Bar(
                label=day.isoformat(),
                amount=amount,
                shown=shown(amount, unit),
                x=round(step * (number + _GAP / 2), 1),
                y=round(_HEIGHT - height, 1),
                width=round(step * (1 - _GAP), 1),
                height=height,
            )
        )
    return Chart(name, title, shown(total, unit), shown(top, unit), bars)


def shown(amount: float, unit: str) -> str:
    """An amount for a person, in the largest unit that leaves a digit before the point."""
    scale = _SCALES.get(unit, ((1, ""),))
    size, name = next(((size, name) for size, name in scale if amount >= size), scale[-1])
    number = amount / size
    digits = f"{number:,.0f}" if size == 1 or number >= 100 else f"{number:,.1f}"  # noqa: PLR2004 - three digits are enough
    return f"{digits} {name}".rstrip()


_SCALES: dict[str, tuple[tuple[int, str], ...]] = {
    "bytes": ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "B")),
    "ms": ((3_600_000, "h"), (60_000, "min"), (1000, "s"), (1, "ms")),
}


def _round_up(amount: int) -> int:
    """The next of 1, 2, 5, 10, 20, …: a scale that does not change with every bar."""
    power = 10 ** max(0, len(str(amount)) - 1)
    return next(power * step for step in _STEPS if power * step >= amount) if amount else 1
