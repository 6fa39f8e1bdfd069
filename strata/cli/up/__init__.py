"""strata up: servers, catalog, cells, demo tenants and the application, from one command on a bare machine."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import AsyncExitStack
from typing import Annotated

import msgspec
import structlog
import typer
import uvloop

from strata.app import create_app
from strata.cli.catalog_database import make_catalog, turn
from strata.cli.demo import ensure_demo_tenants, seed_demo_tenants
from strata.cli.options import DataDir
from strata.cli.sweeping import sweep_once
from strata.cli.up.ground import MOST_SERVERS, Ground
from strata.cli.up.listening import port_of, reserve
from strata.cli.up.platform import prepare_servers
from strata.cli.up.progress import Progress, Step
from strata.cli.up.ready import ready_message, show
from strata.cli.up.serving import Stopping, ended
from strata.cli.up.supervising import supervise
from strata.cli.up.worker_process import WorkerProcess
from strata.cli.whereabouts import settings_for
from strata.platform.logging import configure_logging
from strata.platform.settings import Settings
from strata.runtime import Runtime, open_runtime
from strata.tenancy.catalog.tenants import TenantSummary

log = structlog.get_logger(__name__)


class Plan(msgspec.Struct, frozen=True):
    settings: Settings
    servers: int | None
    demo: bool
    worker: bool
    as_json: bool


def up(
    data_dir: DataDir = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0: any free one (default: STRATA_HTTP__PORT, else 8000).")
    ] = None,
    servers: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_SERVERS, help="Embedded PostgreSQL servers (default: as before, or 1)."),
    ] = None,
    no_demo: Annotated[bool, typer.Option("--no-demo", help="Make no demo tenants.")] = False,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Run no worker: jobs wait for a strata worker started elsewhere.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines; the one before serving has event «ready».")
    ] = False,
) -> None:
    """Start everything and serve until Ctrl-C. Data stays in the data directory."""
    settings = settings_for(data_dir)
    if port is not None:
        settings = settings.model_copy(update={"http": settings.http.model_copy(update={"port": port})})
    # On a terminal the steps are shown instead; requests are logged from the moment there are some.
    watched = not as_json and sys.stderr.isatty()
    configure_logging("app", level=logging.WARNING if watched else logging.INFO, as_json=as_json or None)
    plan = Plan(settings, servers, not no_demo, not no_worker, as_json)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_stopped(plan))


async def _until_stopped(plan: Plan) -> None:
    stopping = Stopping()
    await stopping.run(_live(plan, stopping))


async def _live(plan: Plan, stopping: Stopping) -> None:
    """From nothing to the end; the stack undoes in reverse what was done, wherever it ends."""
    progress = Progress(as_json=plan.as_json)
    ground = Ground(plan.settings, plan.servers)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(ground.stop)
        ground.claim()
        reserved = stack.enter_context(reserve(plan.settings.http))
        with progress.step(Step.SERVERS):
            settings = await ground.start()
        http = settings.http.model_copy(update={"port": port_of(reserved)})
        settings = settings.model_copy(update={"http": http})
        with progress.step(Step.CATALOG):
            catalog_url = await make_catalog(settings)
            ground.announce(os.getpid(), http.port)
            runtime = await stack.enter_async_context(open_runtime(settings))
        async with turn(catalog_url, "up"):
            with progress.step(Step.CELLS):
                await prepare_servers(runtime, ground.server_urls(catalog_url))
                await sweep_once(runtime.provisioning)
            tenants = await _demo(runtime, progress) if plan.demo else []
        with progress.step(Step.SERVING):
            app = create_app(runtime)
        if plan.worker:
            worker = WorkerProcess(settings.data_dir, as_json=plan.as_json, stop_timeout_s=settings.jobs.stop_timeout_s)
            stack.push_async_callback(_cancel, asyncio.create_task(worker.keep()))
        # Ended first: from then on, a server that is gone is meant to be.
        stack.push_async_callback(ended, asyncio.create_task(supervise(ground.embedded, stopping.ask)))
        await stopping.serve(app, reserved, lambda: _say_ready(plan, runtime, tenants))


async def _demo(runtime: Runtime, progress: Progress) -> list[TenantSummary]:
    with progress.step(Step.TENANTS):
        tenants = await ensure_demo_tenants(runtime)
    with progress.step(Step.STOCK):
        await seed_demo_tenants(runtime)
    return tenants


def _say_ready(plan: Plan, runtime: Runtime, tenants: list[TenantSummary]) -> None:
    show(ready_message(runtime, tenants), as_json=plan.as_json)
    configure_logging("app", as_json=plan.as_json or None)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
