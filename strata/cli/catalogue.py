"""Which commands there are, and the module of each: one is imported when it is called, or shown in a list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from strata.platform.on_demand import loaded

if TYPE_CHECKING:
    from typer import _click

COMMANDS = {
    "up": "strata.cli.up:up",
    "worker": "strata.cli.worker:worker",
    "seed": "strata.cli.seed:seed",
    "doctor": "strata.cli.doctor:doctor",
    "usage": "strata.cli.usage:usage",
    "import": "strata.cli.imports:import_file",
    "tenant": "strata.cli.tenants:app",
    "domain": "strata.cli.domains:app",
    "server": "strata.cli.servers:app",
    "cell": "strata.cli.cells:app",
    "token": "strata.cli.tokens:app",
    "jobs": "strata.cli.jobs:app",
    "events": "strata.cli.events:app",
    "audit": "strata.cli.audit:app",
    "flag": "strata.cli.flags:app",
    "segment": "strata.cli.segments:app",
    "settings": "strata.cli.settings:app",
    "db": "strata.cli.database:app",
    "migrate": "strata.cli.migrate:app",
    "neighbours": "strata.cli.neighbours:app",
}
"""A Typer is a group of commands, a function one command."""


class Catalogue(TyperGroup):
    """The root: it knows its commands by name alone until one is wanted."""

    def list_commands(self, ctx: _click.Context) -> list[str]:  # noqa: ARG002 - Click's interface
        return list(COMMANDS)

    def get_command(self, ctx: _click.Context, cmd_name: str) -> _click.Command | None:  # noqa: ARG002 - Click's interface
        return _command(cmd_name) if cmd_name in COMMANDS else None


def _command(name: str) -> _click.Command:
    found = loaded(COMMANDS[name])
    if isinstance(found, typer.Typer):
        group = get_group(found)
        group.name = name
        return group
    alone = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
    alone.command(name)(found)
    return get_command(alone)
