"""strata db …"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import asyncpg
import msgspec
import typer

from strata.cli.options import AsJson, DataDir
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surveying import survey
from strata.cli.whereabouts import settings_for, with_servers
from strata.platform.on_demand import loaded
from strata.tenancy.cell.schema_revisions import CONTROL_SCHEMA
from strata.tenancy.provisioning.upgrade_report import (
    CATALOG,
    Outcome,
    OutcomeState,
    SchemaStatus,
    UpgradePlan,
    UpgradeReport,
)

app = typer.Typer(help="The revisions of catalog, cells and tenant schemas.", rich_markup_mode=None)

_NOT_DONE = 1
_SHOWN = 20
"""Lines about single schemas: what concerns thousands is for --json."""


@app.command("upgrade")
def upgrade(
    canary: Annotated[
        int, typer.Option(min=0, help="So many tenant schemas first; if one of them fails, no other is touched.")
    ] = 0,
    jobs: Annotated[int | None, typer.Option(min=1, help="Connections to cells at most (default: 4).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be upgraded, and change nothing.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Bring the catalog (made if it is missing), every cell and every tenant schema to this version's revisions.

    Exit code 1: something was left behind; strata db status says what and why. Run it again at any time.
    """
    plan = UpgradePlan(canary, jobs, dry_run)
    if asyncio.run(_nothing_to_do(plan, data_dir)):
        report = UpgradeReport([], dry_run, stopped_at_canary=False)
    else:
        report = loaded("strata.cli.upgrading:upgrade")(plan, data_dir)
    if as_json:
        counts = Counter(each.state.value for each in report.outcomes)
        print_json({**msgspec.structs.asdict(report), "complete": report.complete, "counts": counts})
    else:
        _tell(report)
    if not report.complete and not dry_run:
        raise typer.Exit(_NOT_DONE)


async def _nothing_to_do(plan: UpgradePlan, data_dir: Path | None) -> bool:
    """False also where that cannot be told, for a catalog that is not there yet or does not answer: upgrading says more."""
    try:
        return await survey(with_servers(settings_for(data_dir))).nothing_to_do(plan.jobs)
    except (asyncpg.PostgresError, OSError, TimeoutError):
        return False


def _tell(report: UpgradeReport) -> None:
    print_table(
        ("CELL", "UPGRADED TO", "SCHEMAS"),
        (
            (cell, revision, count)
            for (cell, revision), count in sorted(
                Counter((each.cell, _labelled(each)) for each in report.of(OutcomeState.UPGRADED)).items()
            )
        ),
        empty="" if report.outcomes else "Everything is at the newest revision.",
    )
    pending = report.of(OutcomeState.PENDING)
    if pending:
        print_line("Would be upgraded:" if report.dry_run else "Not touched:")
        _list(
            ("CELL", "SCHEMA", "HAS", "NEWEST", ""),
            [(*_place(each), "canary" if each.canary else "") for each in pending],
        )
    for state, title in ((OutcomeState.DEFERRED, "Left to their moves:"), (OutcomeState.FAILED, "Failed:")):
        if left := report.of(state):
            print_line(title)
            _list(("CELL", "SCHEMA", "HAS", "NEWEST", "WHY"), [(*_place(each), each.error) for each in left])
    if ahead := report.of(OutcomeState.AHEAD):
        print_line(f"{len(ahead)} schemas have revisions that this version does not know: a newer one has been there.")
    if report.stopped_at_canary:
        print_line("The canary failed: the others were not touched. Mend it, then run strata db upgrade again.")
    elif not report.complete and not report.dry_run:
        print_line("strata db upgrade tries again what was left; the others are done.")


def _labelled(outcome: Outcome) -> str:
    return f"{_kind(outcome.schema)} {outcome.head}"


def _kind(schema: str) -> str:
    return "control" if schema == CONTROL_SCHEMA else "tenants"


def _place(outcome: Outcome) -> tuple[object, ...]:
    return (outcome.cell, outcome.schema, outcome.revision, outcome.head)


def _list(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print_table(columns, rows[:_SHOWN], empty="")
    if len(rows) > _SHOWN:
        print_line(f"… and {len(rows) - _SHOWN} more; --json lists all.")


@app.command("status")
def status(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Which schema has which revision, which is the newest, and why one was left behind."""
    schemas = asyncio.run(survey(with_servers(settings_for(data_dir))).status())
    behind = [each for each in schemas if not each.current]
    if as_json:
        print_json({"current": not behind, "schemas": [_described(each) for each in schemas]})
        return
    print_table(("SERVER", "CELL", "WHAT", "REVISION", "SCHEMAS", ""), _grouped(schemas), empty="")
    if told := [each for each in behind if each.trouble or each.silence]:
        print_line("")
        _list(
            ("CELL", "SCHEMA", "HAS", "STATE", "TRIES", "LAST TRY (UTC)", "WHY"),
            [
                (each.cell, each.schema, each.revision, *_why(each))
                for each in sorted(told, key=lambda each: each.silence is None)
            ],
        )
    if behind:
        print_line("strata db upgrade brings those behind to the newest revision.")


def _grouped(schemas: Sequence[SchemaStatus]) -> Iterator[tuple[object, ...]]:
    """A line for each cell, kind of schema and revision, however many schemas that is."""
    groups = Counter(
        (
            each.server,
            each.cell,
            CATALOG if each.cell == CATALOG else _kind(each.schema),
            each.revision,
            "does not answer" if each.silence else "" if each.current else f"behind {each.head}",
        )
        for each in schemas
    )
    for (server, cell, what, revision, behind), count in groups.items():
        yield server, cell, what, revision, count, behind


def _why(schema: SchemaStatus) -> tuple[object, ...]:
    if schema.trouble is None:
        return ("does not answer", "", "", schema.silence)
    trouble = schema.trouble
    return (trouble.state, trouble.attempts, f"{trouble.last_at:%Y-%m-%d %H:%M:%S}", trouble.error)


def _described(schema: SchemaStatus) -> dict[str, object]:
    return {**msgspec.structs.asdict(schema), "current": schema.current}
