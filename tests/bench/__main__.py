"""python -m tests.bench [single-tenant] [round-trips] [tryton] [django-tenants] [--quick] [--rounds N] [--seconds S]

Measures side by side, prints tables and writes the raw results to docs/benchmarks (or --out DIRECTORY).
docs/benchmarks.md says what each benchmark is, and what the numbers were.
"""

from __future__ import annotations

import argparse
import signal
import sys
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import structlog

from tests.bench import machine, parties, report, round_trips, single_tenant
from tests.bench.ground import Ground, ground
from tests.bench.load import LoadGenerator
from tests.bench.slices import Plan


class Name(StrEnum):
    ROUND_TRIPS = "round-trips"
    SINGLE_TENANT = "single-tenant"


_DEFAULT = Plan(rounds=16, seconds=0.5)
_QUICK = Plan(rounds=4, seconds=0.3)


def main() -> None:
    given = _arguments()
    # So that a stopped run takes its servers with it.
    signal.signal(signal.SIGTERM, _leave)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    plan = _QUICK if given.quick else _DEFAULT
    plan = Plan(given.rounds or plan.rounds, given.seconds or plan.seconds, tuple(given.connections or plan.connections))
    with ground() as stage, LoadGenerator() as load:
        _measure(stage, load, plan, given)


def _measure(stage: Ground, load: LoadGenerator, plan: Plan, given: argparse.Namespace) -> None:
    names = [Name(name) for name in given.names] or list(Name)
    facts = machine.facts()

    def keep(name: Name, found: dict[str, Any]) -> None:
        file = report.save(name, facts, msgspec.to_builtins(plan), found, given.out)
        print(f"Raw results: {file}")

    sides, everybody = parties.prepare(stage, load)
    if Name.SINGLE_TENANT in names:
        found = single_tenant.run(stage, load, everybody, plan)
        for work, by_connections in found["work"].items():
            for connections, measured in by_connections.items():
                report.show(f"{work}, {connections} at a time", measured)
        keep(Name.SINGLE_TENANT, found)
    # Last: it gives the cells another address for a while, and their role a new password.
    if Name.ROUND_TRIPS in names:
        trips = round_trips.run(stage, load, sides)
        report.show_round_trips(trips)
        keep(Name.ROUND_TRIPS, trips)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*Name, []], help="default: all")
    parser.add_argument("--quick", action="store_true", help="under two minutes, and less exact")
    parser.add_argument("--rounds", type=int, help="slices of each subject")
    parser.add_argument("--seconds", type=float, help="of one slice")
    parser.add_argument("--connections", type=int, nargs="*", help="how many ask at once; one after the other")
    parser.add_argument("--out", type=Path, default=report.DIRECTORY, help="where raw results go")
    return parser.parse_args()


def _leave(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(143)


if __name__ == "__main__":
    main()
