"""Logs: one JSON object a line on stderr, or readable lines on a terminal; never a secret in either.

Every line carries `timestamp`, `severity`, `service`, `logger`, `event` and what is bound for the request or job
(`tenant_id`, `request_id`): `with structlog.contextvars.bound_contextvars(tenant_id=..., request_id=...)`.
"""

from __future__ import annotations

import logging
import logging.config
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from strata.platform.scrubbing import scrub_item

# Theirs to say at INFO: uvicorn repeats each request that we log ourselves, with its tenant.
QUIETER: dict[str, int] = {
    "uvicorn.access": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "alembic": logging.WARNING,
    # Each job is logged by our own runner, with its tenant; Procrastinate's lines would show arguments.
    "procrastinate": logging.CRITICAL,
    "psycopg.pool": logging.ERROR,
    "sqlalchemy": logging.WARNING,
}


def scrub_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Runs last but for rendering, so that tracebacks, already text by then, are scrubbed like all else."""
    return {key: scrub_item(key, value) for key, value in event.items()}


def name_severity(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["severity"] = str(event.pop("level", "info"))
    return event


def drop_coloured_copy(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Uvicorn sends each of its lines twice, once with terminal colours in it."""
    event.pop("color_message", None)
    return event


class _NameService:
    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("service", self._service)
        return event


def configure_logging(
    service: str, *, level: int = logging.INFO, as_json: bool | None = None, stream: TextIO | None = None
) -> None:
    """Once per process. `service` names it (app, worker, cli); `as_json=None`: JSON unless the stream is a terminal."""
    stream = stream or sys.stderr
    as_json = as_json if as_json is not None else not stream.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _NameService(service),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), drop_coloured_copy, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                scrub_secrets,
                *_renderers(as_json=as_json, colours=stream.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    _route_others_to_root()
    for name, quieter in QUIETER.items():
        logging.getLogger(name).setLevel(max(level, quieter))
    logging.captureWarnings(capture=True)


def _renderers(*, as_json: bool, colours: bool) -> list[Processor]:
    if as_json:
        return [name_severity, structlog.processors.JSONRenderer(default=str)]
    return [structlog.dev.ConsoleRenderer(colors=colours)]


def _route_others_to_root() -> None:
    """Uvicorn installs handlers of its own; with them its lines would be neither JSON nor scrubbed."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
