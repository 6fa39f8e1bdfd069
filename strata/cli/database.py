"""strata db …"""

from __future__ import annotations

import asyncio
import logging

import msgspec
import typer

from strata.cli.catalog_database import make_catalog
from strata.cli.options import AsJson, DataDir
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import perform, settings_for, with_servers
from strata.platform.logging import configure_logging
from strata.runtime import Runtime
from strata.tenancy.provisioning.upgrades import SchemaStatus

app = typer.Typer(help="The revisions of catalog, cells and tenant schemas.", rich_markup_mode=None)


@app.command("upgrade")
def upgrade(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Bring the catalog (made if it is missing), every cell and every tenant schema to this version's revisions."""
    configure_logging("cli", level=logging.WARNING, as_json=as_json or None)
    asyncio.run(make_catalog(with_servers(settings_for(data_dir))))

    async def act(runtime: Runtime) -> list[SchemaStatus]:
        return await runtime.upgrades.cells()

    upgraded = perform(act, data_dir, as_json=as_json)
    if as_json:
        print_json({"upgraded": [_described(each) for each in upgraded]})
        return
    print_table(
        ("CELL", "SCHEMA", "REVISION"),
        ((each.cell, each.schema, each.revision) for each in upgraded),
        empty="Everything is at the newest revision.",
    )


@app.command("status")
def status(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Which schema has which revision, and which is the newest."""

    async def act(runtime: Runtime) -> list[SchemaStatus]:
        return await runtime.upgrades.status()

    schemas = perform(act, data_dir, as_json=as_json)
    if as_json:
        print_json(
            {"current": all(each.current for each in schemas), "schemas": [_described(each) for each in schemas]}
        )
        return
    print_table(
        ("CELL", "SCHEMA", "REVISION", "NEWEST", ""),
        ((each.cell, each.schema, each.revision, each.head, "" if each.current else "behind") for each in schemas),
        empty="",
    )
    if not all(each.current for each in schemas):
        print_line("strata db upgrade brings those behind to the newest revision.")


def _described(schema: SchemaStatus) -> dict[str, object]:
    return {**msgspec.structs.asdict(schema), "current": schema.current}
