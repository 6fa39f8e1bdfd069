"""strata doctor: looks at everything an installation needs and says what to mend."""

from __future__ import annotations

import asyncio
import logging

import typer
from rich.text import Text

from strata.cli.doctor.catalog import (
    catalog_url,
    check_catalog,
    check_clock,
    check_redis,
    check_stuck_tenants,
    check_workers,
)
from strata.cli.doctor.cells import check_cell, check_server, registered
from strata.cli.doctor.installation import check_key, check_packages, check_python
from strata.cli.doctor.replicas import check_replica
from strata.cli.doctor.report import Check, Report, Verdict
from strata.cli.options import AsJson, DataDir
from strata.cli.output import console, print_json
from strata.cli.surveying import survey
from strata.cli.whereabouts import settings_for, with_servers
from strata.platform.logging import configure_logging
from strata.platform.settings import Settings
from strata.runtime import Runtime, open_runtime

_MARKS = {Verdict.OK: ("✓", "green"), Verdict.WARNING: ("!", "yellow"), Verdict.FAILURE: ("✗", "red")}


def doctor(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Check the installation, servers, cells and walls; exit code 1 when anything must be mended."""
    configure_logging("cli", level=logging.ERROR, as_json=as_json or None)
    report = Report((lambda _: None) if as_json else _show)
    asyncio.run(_examine(report, data_dir))
    if as_json:
        print_json({"healthy": not report.failed, "checks": report.checks})
    if report.failed:
        raise typer.Exit(1)


async def _examine(report: Report, data_dir: DataDir) -> None:
    """In the order in which one thing needs another; what cannot be reached ends it."""
    check_python(report)
    check_packages(report)
    async with report.surviving("settings"):
        settings = settings_for(data_dir)
        report.ok("settings", f"{settings.environment}, data in {settings.data_dir}")
        await report.examine("key", check_key(report, settings))
        async with report.surviving("servers"):
            await _examine_servers(report, with_servers(settings))


async def _examine_servers(report: Report, settings: Settings) -> None:
    await report.examine("redis", check_redis(report, settings))
    async with report.surviving("catalog"):
        if not await check_catalog(report, catalog_url(settings), survey(settings)):
            return
        async with open_runtime(settings) as runtime:
            await _examine_platform(report, runtime)


async def _examine_platform(report: Report, runtime: Runtime) -> None:
    await report.examine("clock", check_clock(report, runtime))
    await report.examine("workers", check_workers(report, runtime))
    await report.examine("half-made tenants", check_stuck_tenants(report, runtime))
    servers, cells = await registered(runtime)
    if not servers:
        report.warning("servers", "none", "Register one with strata server add, then make a cell with strata cell add.")
    for server in servers:
        await report.examine(f"server {server.name}", check_server(report, runtime, server))
        for replica in await runtime.replicas.of_server(server.name):
            await report.examine(f"replica {replica.name}", check_replica(report, runtime, server.name, replica))
    names = {server.id: server.name for server in servers}
    for cell in cells:
        await report.examine(f"cell {cell.name}", check_cell(report, runtime, cell, names[cell.server_id]))
    await report.examine("revisions", _check_revisions(report, runtime))


async def _check_revisions(report: Report, runtime: Runtime) -> None:
    behind = [f"{each.cell}/{each.schema}" for each in await runtime.upgrades.survey.status() if not each.current]
    if behind:
        report.failure("revisions", f"behind: {', '.join(behind[:5])}", "Bring them up to date with strata db upgrade.")
    else:
        report.ok("revisions", "catalog, cells and tenant schemas are at the newest")


def _show(check: Check) -> None:
    mark, style = _MARKS[check.verdict]
    line = Text.assemble((mark, style), " ", (check.name, "bold"), f": {check.found}")
    if check.todo:
        line.append(f"\n  {check.todo}", style)
    console().print(line, soft_wrap=True)
