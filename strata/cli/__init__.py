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
from strata.cli.catalogue import Catalogue
from strata.cli.output import print_failure, print_line
from strata.platform.errors import BadRequestError, StrataError
from strata.platform.logging import configure_logging
from strata.platform.on_demand import loaded

FAILED = 1
INTERRUPTED = 130

app = typer.Typer(
    name="strata",
    cls=Catalogue,
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
        # What names the errors of every library imports them all.
        failure = error if isinstance(error, StrataError) else loaded("strata.cli.failures:named")(error)
        if failure is None:
            raise
        print_failure(failure, as_json=as_json)
        return FAILED
    return outcome if isinstance(outcome, int) else 0
