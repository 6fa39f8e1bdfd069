"""strata server replica …"""

from __future__ import annotations

from typing import Annotated

import typer

from strata.cli.given_address import given_address
from strata.cli.options import AsJson, DataDir
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.runtime import Runtime
from strata.tenancy.provisioning.standbys import add_replica
from strata.tenancy.replicas.register import ReplicaSummary

app = typer.Typer(help="Streaming standbys of a server, from which tenants' reads are served.", rich_markup_mode=None)

ServerName = Annotated[str, typer.Argument(metavar="SERVER", help="The primary, as in strata server list.")]
ReplicaName = Annotated[str, typer.Argument(metavar="NAME", help="The standby's name.")]


@app.command("add")
def add(
    server: ServerName,
    name: ReplicaName,
    dsn: Annotated[
        str | None,
        typer.Argument(
            metavar="[DSN]",
            help="Its administrator's postgresql://user:password@host:port/database, of one standby and not of a balancer "
            "before several; left out or «-», it is read from standard input.",
        ),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Check a standby and let reads go to it; again with the same name, renew its address."""
    url = given_address(dsn)

    async def act(runtime: Runtime) -> ReplicaSummary:
        await add_replica(runtime.registry, runtime.replicas, server, name, url, actor=actor())
        return next(replica for replica in await runtime.replicas.all(server) if replica.name == name)

    replica = perform(act, data_dir)
    if as_json:
        print_json(replica)
    else:
        print_line(f"Replica {name} of server {server} at {replica.address} takes reads within some seconds.")


@app.command("list")
def list_replicas(
    server: Annotated[str | None, typer.Argument(metavar="[SERVER]", help="Default: of all servers.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Replicas by server and name."""

    async def act(runtime: Runtime) -> list[ReplicaSummary]:
        return await runtime.replicas.all(server)

    replicas = perform(act, data_dir)
    if as_json:
        print_json({"replicas": replicas})
        return
    print_table(
        ("NAME", "SERVER", "ADDRESS", "SINCE"),
        ((r.name, r.server, r.address, r.added_at.isoformat(timespec="seconds")) for r in replicas),
        empty="No replicas: strata server replica add registers one.",
    )


@app.command("remove")
def remove(server: ServerName, name: ReplicaName, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Send no more reads to a standby; it may be stopped some seconds later, and sooner without harm."""

    async def act(runtime: Runtime) -> None:
        await runtime.replicas.remove(server, name, actor())

    perform(act, data_dir)
    if as_json:
        print_json({"removed": name, "server": server})
    else:
        print_line(f"Replica {name} of server {server} takes no more reads.")
