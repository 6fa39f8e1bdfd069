"""strata cell …"""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from strata.cli.options import AsJson, DataDir
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.runtime import Runtime
from strata.tenancy.catalog.registry import CellSummary
from strata.tenancy.model import CellState
from strata.tenancy.provisioning.cells import SHARED_CAPACITY

app = typer.Typer(help="Databases that hold tenants.", rich_markup_mode=None)

CellName = Annotated[str, typer.Argument(metavar="NAME", help="The cell's name, as in strata cell list.")]


@app.command("add")
def add(
    name: CellName,
    server: Annotated[str, typer.Option(help="The server it is made on.")],
    region: Annotated[str | None, typer.Option(help="Default: the server's.")] = None,
    capacity: Annotated[int, typer.Option(min=1, help="The most tenants it takes.")] = SHARED_CAPACITY,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a shared cell. Run again, it finishes one that was left half made, or changes nothing."""

    async def act(runtime: Runtime) -> tuple[bool, CellSummary]:
        made = await runtime.cells.add_shared(name, server, actor=actor(), region=region, capacity=capacity)
        return made, await _cell(runtime, name)

    made, cell = perform(act, data_dir, as_json=as_json)
    if as_json:
        print_json({"created": made, **msgspec.to_builtins(cell)})
    else:
        print_line(f"{'Made' if made else 'There already'}: cell {name} on {cell.server}, database {cell.database}.")


@app.command("list")
def list_cells(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Cells by name, shared and dedicated."""

    async def act(runtime: Runtime) -> list[CellSummary]:
        return await runtime.registry.cells()

    cells = perform(act, data_dir, as_json=as_json)
    if as_json:
        print_json({"cells": cells})
        return
    print_table(
        ("NAME", "SERVER", "REGION", "KIND", "STATE", "DATABASE", "TENANTS", "ROOM FOR"),
        ((c.name, c.server, c.region, c.kind, c.state, c.database, c.tenants, c.capacity) for c in cells),
        empty="No cells: strata cell add makes one.",
    )


@app.command("drain")
def drain(
    name: CellName,
    undo: Annotated[bool, typer.Option("--undo", help="Take new tenants again.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Put no new tenants into a cell; those there stay and work."""

    async def act(runtime: Runtime) -> CellSummary:
        await runtime.registry.drain_cell(name, actor(), draining=not undo)
        return await _cell(runtime, name)

    cell = perform(act, data_dir, as_json=as_json)
    if as_json:
        print_json(cell)
    else:
        print_line(f"Cell {name} takes {'no new' if cell.state is CellState.DRAINING else 'new'} tenants.")


async def _cell(runtime: Runtime, name: str) -> CellSummary:
    return next(cell for cell in await runtime.registry.cells() if cell.name == name)
