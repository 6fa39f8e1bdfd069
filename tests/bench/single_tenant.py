"""Strata beside a plain single-tenant application: what tenancy costs a request, on each tier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.bench import plain_side, strata_side
from tests.bench.ground import Ground
from tests.bench.load import LoadGenerator
from tests.bench.parties import MOVE, READ, Party
from tests.bench.slices import Plan, Subject, measure, results


def run(ground: Ground, load: LoadGenerator, parties: Sequence[Party], plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for work in (READ, MOVE):
        subjects = [Subject(party.name, party.target(work), party.server.pid) for party in parties]
        found[work] = {
            str(connections): results(
                measure(load, subjects, plan, connections=connections, postgres_pid=ground.postgres_pid),
                plain_side.VARIANTS,
            )
            for connections in plan.connections
        }
    return {"pool": strata_side.POOL, "work": found}
