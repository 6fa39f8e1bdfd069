"""strata server …"""

from __future__ import annotations

from typing import Annotated

import typer

from strata.cli.options import AsJson, DataDir
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.platform.database import addresses
from strata.platform.errors import ConfigurationError
from strata.runtime import Runtime
from strata.tenancy.catalog.registry import ServerSummary
from strata.tenancy.provisioning.servers import add_server

app = typer.Typer(
    help="PostgreSQL clusters: they hold cells, and dedicated databases are made on them.", rich_markup_mode=None
)

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
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Check a cluster, prepare it and register it; again with the same name, renew its address and password."""
    given = typer.get_text_stream("stdin").readline().strip() if dsn in {None, "-"} else dsn
    url = addresses.parse(given or "")
    _require_port(app_address)

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
        )
        return await _server(runtime, name)

    server = perform(act, data_dir, as_json=as_json)
    if as_json:
        print_json(server)
    else:
        print_line(f"Server {name} at {server.address} is ready; strata cell add makes a cell on it.")


@app.command("list")
def list_servers(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Servers by name."""

    async def act(runtime: Runtime) -> list[ServerSummary]:
        return await runtime.registry.servers()

    servers = perform(act, data_dir, as_json=as_json)
    if as_json:
        print_json({"servers": servers})
        return
    print_table(
        ("NAME", "REGION", "ADDRESS", "STATE", "CELLS"),
        ((s.name, s.region, s.address, "draining" if s.draining else "open", s.cells) for s in servers),
        empty="No servers: strata server add registers one.",
    )


@app.command("drain")
def drain(
    name: ServerName,
    undo: Annotated[bool, typer.Option("--undo", help="Take new tenants again.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Put no new tenants on a server; those there stay and work."""

    async def act(runtime: Runtime) -> ServerSummary:
        await runtime.registry.drain_server(name, actor(), draining=not undo)
        return await _server(runtime, name)

    server = perform(act, data_dir, as_json=as_json)
    if as_json:
        print_json(server)
    else:
        print_line(f"Server {name} takes {'no new' if server.draining else 'new'} tenants.")


async def _server(runtime: Runtime, name: str) -> ServerSummary:
    return next(server for server in await runtime.registry.servers() if server.name == name)


def _require_port(app_address: str | None) -> None:
    if app_address is not None and not app_address.rpartition(":")[2].isdigit():
        message = f"«{app_address}» is no pooler's address: write host:port."
        raise ConfigurationError(message)
