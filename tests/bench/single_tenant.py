"""Strata beside a plain single-tenant application: what tenancy costs a request, on each tier."""

from __future__ import annotations

from typing import Any

from tests.bench import plain_side, slices, strata_side
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.parties import MOVE, READ
from tests.bench.slices import Plan, Subject, measure, results


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for work in (READ, MOVE):
        subjects = [Subject(party.name, party.target(work), party.server.pid) for party in stand.parties]
        found[work] = {
            str(connections): results(
                measure(stand.load, subjects, plan, connections=connections, postgres_pid=stand.ground.postgres_pid),
                plain_side.VARIANTS,
            )
            for connections in plan.connections
        }
    return {"pool": strata_side.POOL, "work": found}


BENCHMARK = Benchmark(
    "single-tenant",
    run,
    slices.tables,
    plan=Plan(rounds=16, seconds=0.5),
    quick=Plan(rounds=4, seconds=0.25),
    shared_stand=True,
)
