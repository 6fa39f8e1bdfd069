"""strata import"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from strata.cli.options import AsJson, DataDir, Slug
from strata.cli.output import console, print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.inventory.imports import queueing
from strata.inventory.imports.errors import ReportNotYetError
from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.mapping import Mapping, load, packaged_names
from strata.inventory.imports.models import ImportState
from strata.inventory.imports.report import report_format, write_report
from strata.inventory.imports.runner import ImportRunner, Listener, Progress
from strata.inventory.imports.schemas import ImportOptions, ImportSummary, RunOut
from strata.runtime import Runtime


def import_file(
    slug: Slug,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv, plain or packed with gzip.")],
    mapping: Annotated[
        str, typer.Option(metavar="NAME", help=f"{', '.join(packaged_names())}; or the path of a .toml of your own.")
    ],
    opening_stock: Annotated[
        bool, typer.Option("--opening-stock", help="First receive what each product needs, so that nothing runs short.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every refused row and why: .csv or .json.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Import although the same file was imported with other options.")
    ] = False,
    queue: Annotated[bool, typer.Option("--queue", help="Hand the file to the workers and do not wait.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Load a file as products and movements. Stopped half way, the same command goes on where it was."""
    if report is not None:
        report_format(report)
        if queue:
            raise ReportNotYetError
    chosen = load(mapping)
    source = SourceFile(file)
    options = ImportOptions(opening_stock=opening_stock)
    if queue:
        _queue(slug, source, chosen, options, data_dir, again=again, as_json=as_json)
        return

    async def act(runtime: Runtime) -> ImportSummary:
        context = await runtime.contexts.get_by_slug(slug)
        with _shown(as_json=as_json) as listener:
            summary = await ImportRunner(runtime.tenants, context).run(
                source,
                chosen,
                options,
                actor=actor(),
                again=again,
                listener=listener,
            )
        if report is not None:
            await write_report(runtime.tenants, context, summary.run.id, report)
        return summary

    summary = perform(act, data_dir)
    if as_json:
        print_json({"event": "summary", **msgspec.to_builtins(summary)})
    else:
        _tell(summary, slug, report)


def _queue(
    slug: str,
    source: SourceFile,
    mapping: Mapping,
    options: ImportOptions,
    data_dir: Path | None,
    *,
    again: bool,
    as_json: bool,
) -> None:
    async def act(runtime: Runtime) -> RunOut:
        context = await runtime.contexts.get_by_slug(slug)
        order = await queueing.look_at(source, mapping, options)
        async with runtime.tenants.transaction(context) as session:
            limit_mb = context.limits.storage_mb
            return await queueing.accept(session, order, actor=actor(), storage_limit_mb=limit_mb, again=again)

    run = perform(act, data_dir)
    if as_json:
        print_json({"event": "queued", **msgspec.to_builtins(run)})
    elif run.state is ImportState.DONE:
        print_line(f"«{run.file_name}» was imported into {slug} before: nothing to do.")
    else:
        print_line(
            f"Queued «{run.file_name}» for {slug} as import {run.id}; its page and GET /api/v1/imports/{run.id} show it."
        )


@contextmanager
def _shown(*, as_json: bool) -> Iterator[Listener]:
    if as_json:
        yield lambda progress: print_json({"event": "progress", **msgspec.structs.asdict(progress)})
    elif sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bars(*columns, console=console(stderr=True), transient=True) as bars:
            task = bars.add_task("reading")

            def show(progress: Progress) -> None:
                bars.update(task, description=progress.phase, completed=progress.rows, total=progress.of)

            yield show
    else:
        yield lambda _: None


def _tell(summary: ImportSummary, slug: str, report: Path | None) -> None:
    run = summary.run
    if summary.nothing_to_do:
        print_line(
            f"«{run.file_name}» was imported into {slug} before, at {run.finished_at:%Y-%m-%d %H:%M}: nothing to do."
        )
    else:
        gone_on = f", going on at row {summary.rows_before:,}" if summary.rows_before else ""
        print_line(f"Imported «{run.file_name}» into {slug} in {summary.seconds:.1f} s{gone_on}.")
    print_line(
        f"{run.rows_read:,} rows: {run.lines_accepted:,} accepted, {run.lines_refused:,} refused; "
        f"{run.products_created:,} new products, {run.movements_posted:,} movements, "
        f"{run.quantity_sum:+,} units, opening stock {run.opening_sum:,}."
    )
    if summary.folded:
        print_line(f"{len(summary.folded):,} products have codes that differ in writing only.")
    if summary.refused_by_code:
        print_table(
            ("REFUSED", "BECAUSE"), ((count, code) for code, count in summary.refused_by_code.items()), empty=""
        )
        print_line(f"Every one with its reason: {report}" if report else "Every one with its reason: --report FILE.csv")
