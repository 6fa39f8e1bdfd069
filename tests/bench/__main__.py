"""python -m tests.bench [single-tenant] [round-trips] [tryton] [django-tenants] [schemas] [--quick] [--rounds N] [--seconds S]

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

from tests.bench import (
    document,
    machine,
    movements,
    parties,
    plain_side,
    reads,
    report,
    round_trips,
    schemas,
    single_tenant,
)
from tests.bench.ground import Ground, ground
from tests.bench.load import LoadGenerator
from tests.bench.peer_environment import PeerEnvironment
from tests.bench.slices import Plan


class Name(StrEnum):
    SINGLE_TENANT = "single-tenant"
    DJANGO_TENANTS = "django-tenants"
    TRYTON = "tryton"
    SCHEMAS = "schemas"
    ROUND_TRIPS = "round-trips"


_DEFAULT = {
    Name.SINGLE_TENANT: Plan(rounds=16, seconds=0.5),
    Name.DJANGO_TENANTS: Plan(rounds=8, seconds=0.5),
    # Of the slowest some ten fit into a second.
    Name.TRYTON: Plan(rounds=3, seconds=1.5),
}
_QUICK = {
    Name.SINGLE_TENANT: Plan(rounds=4, seconds=0.25),
    Name.DJANGO_TENANTS: Plan(rounds=2, seconds=0.25),
    Name.TRYTON: Plan(rounds=1, seconds=2, connections=(8,)),
}


def main() -> None:
    given = _arguments()
    # So that a stopped run takes its servers with it.
    signal.signal(signal.SIGTERM, _leave)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    names = [Name(name) for name in given.names] or list(Name)
    peers = PeerEnvironment() if {Name.DJANGO_TENANTS, Name.TRYTON, Name.SCHEMAS} & set(names) else None
    facts = machine.facts(peers.versions() if peers else None)
    if Name.SCHEMAS in names:
        names.remove(Name.SCHEMAS)
        _schemas(peers, given, facts)
    if names:
        _requests(names, peers, given, facts)
    if given.out == report.DIRECTORY:
        document.update(report.DOCUMENT, report.DIRECTORY)


def _schemas(peers: PeerEnvironment | None, given: argparse.Namespace, facts: dict[str, Any]) -> None:
    """On servers of its own: thousands of tables beside it would slow down what is asked of the others."""
    assert peers is not None
    plan = schemas.QUICK if given.quick else schemas.SchemasPlan()
    if given.schemas:
        plan = schemas.SchemasPlan(given.schemas, given.schemas, plan.created)
    with ground() as stage:
        found = schemas.run(stage, peers, plan)
    schemas.show(found)
    print(f"Raw results: {report.save(Name.SCHEMAS, facts, msgspec.to_builtins(plan), found, given.out)}")


def _requests(
    names: list[Name], peers: PeerEnvironment | None, given: argparse.Namespace, facts: dict[str, Any]
) -> None:
    with ground() as stage, LoadGenerator() as load:
        bench = _Bench(stage, load, peers, given)
        for name in Name:  # round trips last: they give the cells another address, and their role a new password
            if name in names:
                plan, found = bench.run(name)
                file = report.save(name, facts, msgspec.to_builtins(plan), found, given.out)
                print(f"Raw results: {file}")


class _Bench:
    def __init__(
        self, stage: Ground, load: LoadGenerator, peers: PeerEnvironment | None, given: argparse.Namespace
    ) -> None:
        self._stage = stage
        self._load = load
        self._peers = peers
        self._given = given
        self._sides, self._everybody = parties.prepare(stage, load)
        self._strata = [party for party in self._everybody if party.name not in plain_side.VARIANTS]

    def run(self, name: Name) -> tuple[Plan | None, dict[str, Any]]:
        if name is Name.ROUND_TRIPS:
            found = round_trips.run(self._stage, self._load, self._sides)
            report.show_round_trips(found)
            return None, found
        plan = self._plan(name)
        found = self._measured(name, plan)
        for work, by_connections in found["work"].items():
            for connections, measured in by_connections.items():
                report.show(f"{work}, {connections} at a time", measured)
        return plan, found

    def _measured(self, name: Name, plan: Plan) -> dict[str, Any]:
        if name is Name.SINGLE_TENANT:
            return single_tenant.run(self._stage, self._load, self._everybody, plan)
        assert self._peers is not None
        bench = reads.run if name is Name.DJANGO_TENANTS else movements.run
        return bench(self._stage, self._load, self._peers, self._strata, plan)

    def _plan(self, name: Name) -> Plan:
        given = self._given
        plan = (_QUICK if given.quick else _DEFAULT)[name]
        return Plan(
            given.rounds or plan.rounds, given.seconds or plan.seconds, tuple(given.connections or plan.connections)
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*Name, []], help="default: all")
    parser.add_argument("--quick", action="store_true", help="under two minutes, and less exact")
    parser.add_argument("--rounds", type=int, help="slices of each subject")
    parser.add_argument("--seconds", type=float, help="of one slice")
    parser.add_argument("--connections", type=int, nargs="*", help="how many ask at once; one after the other")
    parser.add_argument("--schemas", type=int, help="how many, of each side, in the benchmark of that name")
    parser.add_argument("--out", type=Path, default=report.DIRECTORY, help="where raw results go")
    return parser.parse_args()


def _leave(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(143)


if __name__ == "__main__":
    main()
