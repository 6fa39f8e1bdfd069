"""The drain of a server and that of a cell: the same plan, the same table."""

from __future__ import annotations

from pathlib import Path

from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.runtime import Runtime
from strata.tenancy.catalog.tables import DrainKind
from strata.tenancy.provisioning.draining import DrainPlan


def perform_drain(kind: DrainKind, name: str, *, undo: bool, show: bool, data_dir: Path | None, as_json: bool) -> None:
    async def act(runtime: Runtime) -> DrainPlan | None:
        if undo:
            await runtime.drains.end(kind, name, actor())
            return None
        return await (runtime.drains.due(kind, name) if show else runtime.drains.begin(kind, name, actor()))

    plan = perform(act, data_dir)
    if as_json:
        print_json({"kind": kind, "subject": name, "draining": plan is not None, "plan": plan})
    elif plan is None:
        print_line(f"{kind.value.capitalize()} {name} takes new tenants; its plan is forgotten.")
    else:
        print_line(f"{kind.value.capitalize()} {name} takes no new tenants; those to be moved:")
        print_table(
            ("TENANT", "TIER", "FROM", "TO", "WHY"),
            (
                (move.slug, move.tier, move.from_cell, move.to_cell or move.to_server or "nowhere", move.reason)
                for move in plan.moves
            ),
            empty="None: it is empty.",
        )
