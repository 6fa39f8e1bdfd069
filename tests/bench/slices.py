"""Subjects measured side by side: short slices in turn, A B C A B C, in an order that shifts with each round.

A machine's speed drifts, and others use it too; what is compared is therefore always two neighbouring slices, and the
ratio reported is the median over the rounds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec

from tests.bench.cpu import busy_ns
from tests.bench.load import LoadGenerator, Slice
from tests.bench.tables import Table

_QUANTILES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100)


class SliceTooShortError(Exception):
    pass


class Subject(msgspec.Struct, frozen=True):
    """Who is measured, the load generator's name for the requests, and the process that serves them."""

    name: str
    target: str
    server_pid: int
    may_refuse: bool = False
    """Whether refusals are counted rather than the end of the run: what another system does under contention."""


class Plan(msgspec.Struct, frozen=True):
    rounds: int
    seconds: float
    """Of one slice."""
    connections: tuple[int, ...] = (1, 8)


class Measured(msgspec.Struct):
    latencies_ns: list[int] = []
    rounds: list[dict[str, Any]] = []


def measure(
    load: LoadGenerator, subjects: Sequence[Subject], plan: Plan, *, connections: int, postgres_pid: int
) -> dict[str, Measured]:
    measured = {subject.name: Measured() for subject in subjects}
    for subject in subjects:
        warm_up_s = min(plan.seconds, 0.5)
        load.run(subject.target, connections=connections, seconds=warm_up_s, may_refuse=subject.may_refuse)
    for number in range(plan.rounds):
        shift = number % len(subjects)
        for subject in [*subjects[shift:], *subjects[:shift]]:
            before = _busy(subject, postgres_pid)
            done = load.run(
                subject.target, connections=connections, seconds=plan.seconds, may_refuse=subject.may_refuse
            )
            after = _busy(subject, postgres_pid)
            cpu = {who: after[who] - before[who] for who in after}
            if not done.latencies_ns:
                message = (
                    f"{subject.name} finished nothing within {plan.seconds} s; give longer slices (--set seconds=…)"
                )
                raise SliceTooShortError(message)
            measured[subject.name].latencies_ns += done.latencies_ns
            measured[subject.name].rounds.append(_summary(done, cpu))
        _progress(f"  {connections} connection(s): round {number + 1} of {plan.rounds}")
    _progress("")
    return measured


def results(measured: dict[str, Measured], baselines: Sequence[str]) -> dict[str, Any]:
    """Of each subject its quantiles, its rounds, and its ratio to each baseline."""
    return {
        name: {
            "requests": len(each.latencies_ns),
            "refused": sum(one["refused"] for one in each.rounds),
            "latency_us": quantiles_us(each.latencies_ns),
            "requests_per_s": round(median(one["requests_per_s"] for one in each.rounds), 1),
            "cpu_us_per_request": {
                who: round(median(one["cpu_us_per_request"][who] for one in each.rounds), 1)
                for who in each.rounds[0]["cpu_us_per_request"]
            },
            "ratio_to": {base: _ratios(each, measured[base]) for base in baselines if base != name},
            "rounds": each.rounds,
        }
        for name, each in measured.items()
    }


def tables(found: dict[str, Any]) -> list[Table]:
    """One for each piece of work at each number of connections."""
    return [
        _table(f"{work}, {connections} at a time", measured)
        for work, by_connections in found["work"].items()
        for connections, measured in by_connections.items()
    ]


def _table(title: str, measured: dict[str, Any]) -> Table:
    bases = [name for name in measured if any(name in each["ratio_to"] for each in measured.values())]
    head = ["", "p50 µs", "p95", "p99", "requests/s", "CPU µs, application", "CPU µs, PostgreSQL", "refused"]
    rows = [[*head, *(f"p50 ÷ {base}" for base in bases), *(f"p99 ÷ {base}" for base in bases)]]
    for name, each in measured.items():
        latency, cpu = each["latency_us"], each["cpu_us_per_request"]
        numbers = [latency["p50"], latency["p95"], latency["p99"], each["requests_per_s"]]
        numbers += [cpu["application"], cpu["postgresql"], each["refused"]]
        ratios = [_shown(each["ratio_to"].get(base), quantile) for quantile in ("p50", "p99") for base in bases]
        rows.append([name, *(f"{number:,.0f}" for number in numbers), *ratios])
    return Table(rows, title)


def _shown(ratio: dict[str, Any] | None, quantile: str) -> str:
    return f"{ratio[quantile]['median']:.2f}" if ratio else ""


def quantiles_us(latencies_ns: Sequence[int]) -> dict[str, float]:
    ordered = sorted(latencies_ns)
    return {f"p{q}": round(ordered[min(len(ordered) - 1, int(len(ordered) * q / 100))] / 1e3, 1) for q in _QUANTILES}


def _ratios(each: Measured, base: Measured) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in ("p50_us", "mean_us", "p99_us"):
        ratios = sorted(a[key] / b[key] for a, b in zip(each.rounds, base.rounds, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        found[key.removesuffix("_us")] = {
            "median": round(median(ratios), 3),
            "middle_half": [round(low, 3), round(high, 3)],
        }
    return found


def _summary(done: Slice, cpu_ns: dict[str, int]) -> dict[str, Any]:
    ordered = sorted(done.latencies_ns)
    count = len(ordered)
    return {
        "requests": count,
        "refused": sum(done.refused.values()),
        "requests_per_s": round(count / (done.elapsed_ns / 1e9), 1),
        "mean_us": round(sum(ordered) / count / 1e3, 1),
        "p50_us": round(ordered[count // 2] / 1e3, 1),
        "p95_us": round(ordered[int(count * 0.95)] / 1e3, 1),
        "p99_us": round(ordered[int(count * 0.99)] / 1e3, 1),
        # Over all requests of the slice, its unmeasured first tenth included.
        "cpu_us_per_request": {who: round(spent / done.sent / 1e3, 1) for who, spent in cpu_ns.items()},
    }


def _busy(subject: Subject, postgres_pid: int) -> dict[str, int]:
    return {"application": busy_ns(subject.server_pid), "postgresql": busy_ns(postgres_pid)}


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
