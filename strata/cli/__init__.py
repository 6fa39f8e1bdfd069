"""`strata`, the command: every act of staff and developers, for people (tables) and for programs (--json).

Exit codes: 0 done, 1 not done (standard error says why and what to do), 2 the command line was not understood,
130 interrupted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from strata import __version__
from strata.cli import audit, cells, database, domains, entitlements, events, jobs, migrate, servers, tenants, tokens
from strata.cli.agreements import set_document
from strata.cli.doctor import doctor
from strata.cli.failures import named
from strata.cli.imports import import_file
from strata.cli.output import print_failure, print_line
from strata.cli.seed import seed
from strata.cli.up import up
from strata.cli.usage import usage
from strata.cli.worker import worker
from strata.platform.errors import BadRequestError
from strata.platform.logging import configure_logging

FAILED = 1
INTERRUPTED = 130

app = typer.Typer(
    name="strata",
    help="Run Strata and look after its tenants, cells and servers.",
    rich_markup_mode=None,
    # Tracebacks with the values of local variables would show passwords.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _strata(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        print_line(__version__)
    elif context.invoked_subcommand is None:
        print_line(context.get_help())


app.command("up")(up)
app.command("worker")(worker)
app.command("seed")(seed)
app.command("doctor")(doctor)
app.command("import")(import_file)
app.command("usage")(usage)
app.add_typer(tenants.app, name="tenant")
tenants.app.command("set")(set_document)
tenants.app.command("plan")(entitlements.plan)
tenants.app.command("entitlements")(entitlements.entitlements)
tenants.app.command("grant")(entitlements.grant)
tenants.app.command("revoke")(entitlements.revoke)
app.add_typer(domains.app, name="domain")
app.add_typer(servers.app, name="server")
app.add_typer(cells.app, name="cell")
app.add_typer(tokens.app, name="token")
app.add_typer(jobs.app, name="jobs")
app.add_typer(events.app, name="events")
app.add_typer(audit.app, name="audit")
app.add_typer(database.app, name="db")
app.add_typer(migrate.app, name="migrate")


class UsageError(BadRequestError):
    code = "usage"
    title = "Command line not understood"


def main(arguments: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(words))


def run(words: Sequence[str]) -> int:
    """Run one command line and return its exit code; whatever can be expected to fail ends in a sentence."""
    as_json = "--json" in words
    # Before anything can say a word: unconfigured, structlog writes to standard output, which is the document's alone.
    configure_logging("cli", level=logging.WARNING, as_json=as_json or None)
    try:
        outcome = app(args=list(words), prog_name="strata", standalone_mode=False)
    except TyperException as error:
        context: typer.Context | None = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "strata"
        detail = f"{error.format_message().rstrip('.')}: see {command} --help."
        print_failure(UsageError(detail), as_json=as_json)
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:
        failure = named(error)
        if failure is None:
            raise
        print_failure(failure, as_json=as_json)
        return FAILED
    return outcome if isinstance(outcome, int) else 0
