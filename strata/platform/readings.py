"""Numbers that parts of a process keep anyway, shown to Prometheus when it asks: counting costs them nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Reading(msgspec.Struct, frozen=True):
    name: str
    """Of a counter without `_total`, which Prometheus adds."""
    help: str
    read: Callable[[], float | dict[str, float]]
    """One number, or one by the value of `label`."""
    label: str = ""
    counter: bool = True


class Readings(Collector):
    def __init__(self, registry: CollectorRegistry, readings: Iterable[Reading]) -> None:
        self._readings = tuple(readings)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        for reading in self._readings:
            kind = CounterMetricFamily if reading.counter else GaugeMetricFamily
            family = kind(reading.name, reading.help, labels=[reading.label] if reading.label else [])
            found = reading.read()
            by_label = found if isinstance(found, dict) else {"": found}
            for label, value in by_label.items():
                family.add_metric([label] if reading.label else [], value)
            yield family
