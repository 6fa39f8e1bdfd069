"""strata usage: what tenants have used, and who grows fastest."""

from __future__ import annotations

from typing import Annotated

import typer

from strata.cli.options import AsJson, DataDir
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import perform
from strata.platform.errors import BadRequestError
from strata.runtime import Runtime
from strata.tenancy.usage.book import Growth, today
from strata.tenancy.usage.meters import Meter
from strata.tenancy.usage.report import UsageReport, checked_period, csv_of, report_of


class NobodyNamedError(BadRequestError):
    code = "nobody-named"
    title = "Whose usage?"


def usage(
    slug: Annotated[str | None, typer.Argument(metavar="[SLUG]", help="Whose usage; left out with --growth.")] = None,
    period: Annotated[str | None, typer.Option(metavar="MONTH", help="As 2026-03, in UTC (default: this one).")] = None,
    by_day: Annotated[bool, typer.Option("--days", help="Each day, too.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: the month, then each day.")] = False,
    growth: Annotated[
        Meter | None, typer.Option(metavar="METER", help="Who grows fastest by this meter, such as api-calls.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """What a tenant used in a month, or which tenants grow fastest."""
    if growth is not None:
        _show_growth(perform(lambda runtime: runtime.usage.growth(growth, today()), data_dir), as_json)
        return
    if slug is None:
        detail = "Name a tenant, or ask with --growth METER who grows fastest."
        raise NobodyNamedError(detail)
    month = checked_period(period)

    async def act(runtime: Runtime) -> UsageReport:
        return await report_of(runtime.usage, (await runtime.directory.get(slug)).id, month)

    report = perform(act, data_dir)
    if as_json:
        print_json(report)
    elif as_csv:
        print_line(csv_of(report).replace("\r\n", "\n").rstrip())
    else:
        _show(report, by_day=by_day)


def _show(report: UsageReport, *, by_day: bool) -> None:
    print_table(
        ("PERIOD", "METER", "AMOUNT"),
        ((each.period, each.meter, each.amount) for each in report.totals),
        empty=f"Nothing in {report.period}.",
    )
    if by_day and report.days:
        print_table(("DAY", "METER", "AMOUNT"), ((each.day, each.meter, each.amount) for each in report.days), empty="")


def _show_growth(found: list[Growth], as_json: bool) -> None:
    if as_json:
        print_json({"growth": found})
        return
    print_table(
        ("TENANT", "METER", "BEFORE", "NOW", "GROWTH"),
        (
            (each.slug, each.meter, each.before, each.now, "new" if each.percent is None else f"+{each.percent} %")
            for each in found
        ),
        empty="Nobody used more than in the week before.",
    )
