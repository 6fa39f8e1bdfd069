"""strata cell …"""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from strata.cli.draining import Drain, PlanOnly, Show, Undo, perform_drain
from strata.cli.options import AsJson, DataDir
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.cli.waves import Hours, MaxFailures, Parallel, Zone, pace
from strata.migrator.waves.desk import MAX_FAILURES, PARALLEL
from strata.runtime import Runtime
from strata.tenancy.catalog.registry import CellSummary
from strata.tenancy.catalog.tables import DrainKind
from strata.tenancy.plans import plan_named
from strata.tenancy.provisioning.cells import SHARED_CAPACITY

app = typer.Typer(help="Databases that hold tenants.", rich_markup_mode=None)

CellName = Annotated[str, typer.Argument(metavar="NAME", help="The cell's name, as in strata cell list.")]


@app.command("add")
def add(
    name: CellName,
    server: Annotated[str, typer.Option(help="The server it is made on.")],
    region: Annotated[str | None, typer.Option(help="Default: the server's.")] = None,
    capacity: Annotated[int, typer.Option(min=1, help="The most tenants it takes.")] = SHARED_CAPACITY,
    plan: Annotated[list[str] | None, typer.Option(help="Keep it for tenants of this plan; may be repeated.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a shared cell. Run again, it finishes one that was left half made, or changes nothing."""
    for each in plan or ():
        plan_named(each)

    async def act(runtime: Runtime) -> tuple[bool, CellSummary]:
        made = await runtime.cells.add_shared(
            name, server, actor=actor(), region=region, capacity=capacity, plans=plan or None
        )
        return made, await _cell(runtime, name)

    made, cell = perform(act, data_dir)
    if as_json:
        print_json({"created": made, **msgspec.to_builtins(cell)})
    else:
        print_line(f"{'Made' if made else 'There already'}: cell {name} on {cell.server}, database {cell.database}.")


@app.command("list")
def list_cells(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Cells by name, shared and dedicated."""

    async def act(runtime: Runtime) -> list[CellSummary]:
        return await runtime.registry.cells()

    cells = perform(act, data_dir)
    if as_json:
        print_json({"cells": cells})
        return
    print_table(
        ("NAME", "SERVER", "REGION", "KIND", "STATE", "DATABASE", "TENANTS", "ROOM FOR", "PLANS"),
        (
            (
                c.name,
                c.server,
                c.region,
                c.kind,
                c.state,
                c.database,
                c.tenants,
                c.capacity,
                "any" if c.plans is None else ", ".join(c.plans),
            )
            for c in cells
        ),
        empty="No cells: strata cell add makes one.",
    )


@app.command("drain")
def drain(
    name: CellName,
    undo: Undo = False,
    show: Show = False,
    plan_only: PlanOnly = False,
    parallel: Parallel = PARALLEL,
    max_failures: MaxFailures = MAX_FAILURES,
    window: Hours = None,
    time_zone: Zone = "UTC",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Put no new tenants into a cell and move those there elsewhere, in a wave; until they are moved they stay and work."""
    asked = Drain(DrainKind.CELL, name, pace(parallel, max_failures, window, time_zone, "0s"), undo, show, plan_only)
    perform_drain(asked, data_dir, as_json=as_json)


async def _cell(runtime: Runtime, name: str) -> CellSummary:
    return next(cell for cell in await runtime.registry.cells() if cell.name == name)
