"""strata worker: runs jobs until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Annotated

import typer
import uvloop

from strata.cli.options import DataDir
from strata.cli.output import print_json
from strata.cli.whereabouts import settings_for, with_servers
from strata.platform.jobs.worker import JobWorker
from strata.platform.logging import configure_logging
from strata.platform.settings import Settings
from strata.runtime import open_runtime
from strata.worker import known_queues, open_worker

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def worker(
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Jobs at once (default: STRATA_JOBS__CONCURRENCY, else 10).")
    ] = None,
    queues: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help=f"Separated by commas (default: all: {', '.join(known_queues())})."),
    ] = None,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="Stop when standard input ends, so as not to outlive who started it.")
    ] = False,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines: «ready», then «stopped».")] = False,
) -> None:
    """Run background jobs until Ctrl-C or SIGTERM; those under way may finish first."""
    configure_logging("worker", as_json=as_json or None)
    settings = with_servers(settings_for(data_dir))
    if concurrency is not None:
        settings = settings.model_copy(update={"jobs": settings.jobs.model_copy(update={"concurrency": concurrency})})
    wanted = None if queues is None else [name.strip() for name in queues.split(",")]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(settings, wanted, until_eof=until_eof, as_json=as_json))


async def _work(settings: Settings, queues: list[str] | None, *, until_eof: bool, as_json: bool) -> None:
    async with open_runtime(settings) as runtime:
        job_worker = open_worker(runtime, settings.jobs, queues=queues)
        _stop_on_request(job_worker, until_eof=until_eof)
        running = asyncio.create_task(job_worker.run())
        started = asyncio.create_task(job_worker.started.wait())
        await asyncio.wait([running, started], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if as_json and not running.done():
            print_json({"event": "ready", "pid": os.getpid(), "queues": queues or known_queues()})
        await running
    if as_json:
        print_json({"event": "stopped"})


def _stop_on_request(job_worker: JobWorker, *, until_eof: bool) -> None:
    loop = asyncio.get_running_loop()
    for each in _SIGNALS:
        # nohup has a process outlive its terminal by ignoring SIGHUP; that is to be left so.
        if each is not signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN:
            loop.add_signal_handler(each, job_worker.stop)
    if until_eof:
        # The pipe's other end closes with the process that holds it, also when that was killed.
        loop.add_reader(sys.stdin.fileno(), job_worker.stop)
