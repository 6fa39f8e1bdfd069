"""strata server …"""

from __future__ import annotations

from typing import Annotated

import typer

from strata.cli import replicas
from strata.cli.approving import approve
from strata.cli.draining import Drain, PlanOnly, Show, Undo, perform_drain
from strata.cli.given_address import given_address
from strata.cli.options import AsJson, DataDir
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.cli.waves import Hours, MaxFailures, Parallel, Zone, pace
from strata.migrator.waves.desk import MAX_FAILURES, PARALLEL
from strata.platform.errors import ConfigurationError
from strata.runtime import Runtime
from strata.tenancy.catalog.registry import ServerSummary
from strata.tenancy.catalog.tables import DrainKind
from strata.tenancy.plans import plan_named
from strata.tenancy.provisioning.servers import add_server

app = typer.Typer(
    help="PostgreSQL clusters: they hold cells, and dedicated databases are made on them.", rich_markup_mode=None
)
app.add_typer(replicas.app, name="replica")
app.command("approve")(approve)

ServerName = Annotated[str, typer.Argument(metavar="NAME", help="The server's name, as in strata server list.")]


@app.command("add")
def add(
    name: ServerName,
    dsn: Annotated[
        str | None,
        typer.Argument(
            metavar="[DSN]",
            help="Its administrator's postgresql://user:password@host:port/database; left out or «-», it is read from "
            "standard input, where no other process sees it.",
        ),
    ] = None,
    region: Annotated[str, typer.Option(help="Where it stands; tenants can be pinned to a region.")] = "local",
    app_address: Annotated[
        str | None, typer.Option(help="host:port of the pooler that tenants' work goes through.")
    ] = None,
    capacity: Annotated[int | None, typer.Option(min=0, help="The most dedicated databases it takes.")] = None,
    plan: Annotated[
        list[str] | None, typer.Option(help="Keep it for dedicated databases of this plan; may be repeated.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Check a cluster, prepare it and register it; again with the same name, renew its address and password."""
    url = given_address(dsn)
    _require_port(app_address)
    for each in plan or ():
        plan_named(each)

    async def act(runtime: Runtime) -> ServerSummary:
        await add_server(
            runtime.registry,
            name,
            url,
            region=region,
            role_prefix=runtime.settings.role_prefix,
            actor=actor(),
            app_address=app_address,
            statement_timeout_ms=runtime.settings.pool.statement_timeout_ms,
            capacity=capacity,
            plans=plan or None,
        )
        return await _server(runtime, name)

    server = perform(act, data_dir)
    if as_json:
        print_json(server)
    else:
        print_line(f"Server {name} at {server.address} is ready; strata cell add makes a cell on it.")


@app.command("list")
def list_servers(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Servers by name."""

    async def act(runtime: Runtime) -> list[ServerSummary]:
        return await runtime.registry.servers()

    servers = perform(act, data_dir)
    if as_json:
        print_json({"servers": servers})
        return
    print_table(
        ("NAME", "REGION", "ADDRESS", "STATE", "CELLS", "ROOM FOR", "PLANS"),
        (
            (s.name, s.region, s.address, "draining" if s.draining else "open", s.cells, s.capacity, _listed(s.plans))
            for s in servers
        ),
        empty="No servers: strata server add registers one.",
    )


@app.command("drain")
def drain(
    name: ServerName,
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
    """Put no new tenants on a server and move those there elsewhere, in a wave; until they are moved they stay and work."""
    asked = Drain(DrainKind.SERVER, name, pace(parallel, max_failures, window, time_zone, "0s"), undo, show, plan_only)
    perform_drain(asked, data_dir, as_json=as_json)


async def _server(runtime: Runtime, name: str) -> ServerSummary:
    return next(server for server in await runtime.registry.servers() if server.name == name)


def _listed(plans: tuple[str, ...] | None) -> str:
    return "any" if plans is None else ", ".join(plans)


def _require_port(app_address: str | None) -> None:
    if app_address is not None and not app_address.rpartition(":")[2].isdigit():
        message = f"«{app_address}» is no pooler's address: write host:port."
        raise ConfigurationError(message)
