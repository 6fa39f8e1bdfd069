"""strata segment …: groups of tenants that rules of flags refer to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from strata.cli.agreements import read_document
from strata.cli.options import AsJson, DataDir
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.runtime import Runtime
from strata.tenancy.flags.dry_run import DryRun
from strata.tenancy.flags.making import segment_from
from strata.tenancy.flags.model import Segment

app = typer.Typer(help="Segments: tenants that the rules of flags refer to.", rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(metavar="NAME")]
WhyOption = Annotated[str | None, typer.Option("--reason", help="Why; kept in the history.")]


@app.command("list")
def list_segments(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Segments by name."""

    async def act(runtime: Runtime) -> list[Segment]:
        return await runtime.flag_desk.segments()

    found = perform(act, data_dir)
    if as_json:
        print_json({"segments": found})
        return
    print_table(
        ("NAME", "TENANTS BY NAME", "EXCLUDED", "GROUPS OF CONDITIONS", "WHAT FOR"),
        ((each.name, len(each.tenants), len(each.excluded), len(each.any_of), each.description) for each in found),
        empty="No segments: strata segment put NAME FILE makes one.",
    )


@app.command("put")
def put(
    name: NameArgument,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A JSON object; - for standard input.")] = None,
    tenant: Annotated[
        list[str] | None, typer.Option(metavar="SLUG", help="A tenant in it, beside those of the file; repeatable.")
    ] = None,
    reason: WhyOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say which tenants would get something else.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a segment, or replace it."""
    document = {} if file is None else read_document(file)

    async def act(runtime: Runtime) -> Segment | DryRun:
        named: list[UUID] = [(await runtime.directory.get(slug)).id for slug in tenant or ()]
        segment = segment_from(name, document, named)
        if dry_run:
            return await runtime.flag_desk.try_segment(segment)
        return await runtime.flag_desk.put_segment(segment, actor(), reason=reason)

    done = perform(act, data_dir)
    if as_json:
        print_json(done)
    elif isinstance(done, DryRun):
        for each in done.changed:
            print_line(f"{each.tenant} would get «{each.after}» of {each.flag}, not «{each.before}».")
        print_line(f"{len(done.changed)} changes in all.")
    else:
        print_line(f"{name}: {len(done.tenants)} tenants by name, {len(done.any_of)} groups of conditions.")


@app.command("delete")
def delete(name: NameArgument, reason: WhyOption = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Take a segment away that no flag uses."""

    async def act(runtime: Runtime) -> None:
        await runtime.flag_desk.delete_segment(name, actor(), reason=reason)

    perform(act, data_dir)
    if as_json:
        print_json({"deleted": name})
    else:
        print_line(f"{name} is deleted.")
