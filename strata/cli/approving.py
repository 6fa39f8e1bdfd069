"""strata server approve …"""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from strata.cli.given_address import given_address
from strata.cli.options import AsJson, DataDir
from strata.cli.output import print_json, print_line
from strata.cli.surroundings import actor, perform
from strata.migrator.approval.desk import CellApproval, ServerApproval
from strata.runtime import Runtime

ServerName = Annotated[str, typer.Argument(metavar="NAME", help="The server's name, as in strata server list.")]
_REGISTERED = "registered"


def approve(
    name: ServerName,
    dsn: Annotated[
        str,
        typer.Argument(
            metavar="[DSN]",
            help="The promoted standby's administrator's address where it is another than the registered one; «-»: read from "
            "standard input.",
        ),
    ] = _REGISTERED,
    give_up: Annotated[
        str | None,
        typer.Option(
            metavar="TIMELINE",
            help="Approve a server that has nothing of what was written on this timeline, whose server is lost for good.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Let tenants in again on a server that was failed over to its standby, as far as that has heard of them."""
    url = None if dsn == _REGISTERED else given_address(dsn)

    async def act(runtime: Runtime) -> ServerApproval:
        return await runtime.approvals.approve(name, actor(), url=url, given_up=give_up, dry_run=dry_run)

    approval = perform(act, data_dir)
    if as_json:
        print_json({**msgspec.to_builtins(approval), "complete": approval.complete})
    else:
        _tell(approval)
    if not approval.complete:
        raise typer.Exit(1)


def _tell(approval: ServerApproval) -> None:
    would = "would be " if approval.dry_run else ""
    for cell in approval.cells:
        print_line(_about(cell, would))
        for sentence in (
            *(finding.sentence for finding in cell.findings if finding.sentence),
            *(each.sentence for each in cell.behind),
        ):
            print_line(f"  {sentence}")
    for missing in approval.missing:
        print_line(f"{missing.sentence} ({', '.join(missing.tenants) or 'no tenants'})")
    for replica in approval.replicas:
        print_line(f"Replica {replica} is the primary now; its registration {would or 'was '}dropped.")
    for each in approval.leftovers:
        print_line(each.sentence or f"What «{each.slug}» had left in {each.where} {would or 'was '}removed.")
    if approval.complete and not approval.dry_run:
        print_line(f"Server {approval.server} is approved: its tenants are let in.")


def _about(cell: CellApproval, would: str) -> str:
    if cell.timeline == cell.was and not cell.passed_over:
        return f"Cell {cell.cell} is approved on timeline {cell.timeline}; {cell.served} tenants are let in."
    return (
        f"Cell {cell.cell} {would or 'is '}approved on timeline {cell.timeline} (before: {cell.was}); {cell.served} tenants "
        f"{would or 'are '}let in."
    )
