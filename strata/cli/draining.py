"""The drain of a server and that of a cell: the same plan, the same wave over it, the same table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.cli.waves import print_started
from strata.migrator.waves.desk import Pace
from strata.migrator.waves.store import Wave
from strata.runtime import Runtime
from strata.tenancy.catalog.tables import DrainKind
from strata.tenancy.provisioning.draining import DrainPlan

Undo = Annotated[
    bool, typer.Option("--undo", help="Take new tenants again, forget the plan, begin no more of its moves.")
]
Show = Annotated[bool, typer.Option("--show", help="Show the plan there is, and what of it is still to do.")]
PlanOnly = Annotated[bool, typer.Option("--plan-only", help="Plan where those there go, and move nobody yet.")]


class Drain(msgspec.Struct, frozen=True):
    """What somebody asks of a cell or a server."""

    kind: DrainKind
    name: str
    pace: Pace
    undo: bool
    show: bool
    plan_only: bool


def perform_drain(drain: Drain, data_dir: Path | None, *, as_json: bool) -> None:
    async def act(runtime: Runtime) -> tuple[DrainPlan | None, Wave | None]:
        if drain.undo:
            await runtime.drains.end(drain.kind, drain.name, actor())
            await runtime.waves.end_drain(drain.kind, drain.name, actor())
            return None, None
        if drain.show:
            return await runtime.drains.due(drain.kind, drain.name), None
        plan = await runtime.drains.begin(drain.kind, drain.name, actor())
        if drain.plan_only:
            # Moves of an earlier plan must not go on beside a plan that says otherwise.
            await runtime.waves.end_drain(drain.kind, drain.name, actor())
            return plan, None
        return plan, await runtime.waves.drain(plan, drain.pace, actor())

    plan, wave = perform(act, data_dir)
    if as_json:
        print_json({
            "kind": drain.kind, "subject": drain.name, "draining": plan is not None, "plan": plan, "wave": wave,
        })  # fmt: skip
        return
    _print(drain, plan)
    if wave is not None:
        print_started(wave, as_json=False)


def _print(drain: Drain, plan: DrainPlan | None) -> None:
    what = f"{drain.kind.value.capitalize()} {drain.name}"
    if plan is None:
        print_line(f"{what} takes new tenants; its plan is forgotten, and no more of its moves begin.")
        return
    print_line(f"{what} takes no new tenants; those to be moved:")
    print_table(
        ("TENANT", "TIER", "FROM", "TO", "WHY"),
        (
            (move.slug, move.tier, move.from_cell, move.to_cell or move.to_server or "nowhere", move.reason)
            for move in plan.moves
        ),
        empty="None: it is empty.",
    )
