from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from strata.platform.logging import configure_logging
from tests.builders.logs import logging_as_it_was

SECRET = "hunter2"


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    with logging_as_it_was():
        configure_logging("app", as_json=True, stream=stream)
        yield stream


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_who_speaks_for_which_tenant_and_request(logged: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(tenant_id="t-1", request_id="r-1"):
        structlog.get_logger("strata.inventory").warning("stock is short", sku="A-1")

    (line,) = lines(logged)
    assert line.pop("timestamp")
    assert line == {
        "event": "stock is short",
        "sku": "A-1",
        "severity": "warning",
        "service": "app",
        "logger": "strata.inventory",
        "tenant_id": "t-1",
        "request_id": "r-1",
    }


def test_loggers_of_the_standard_library_come_out_the_same_way(logged: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(tenant_id="t-1"):
        logging.getLogger("sqlalchemy.pool").error("lost %s", f"postgresql://u:{SECRET}@h/d", extra={"pool": "cell-1"})

    (line,) = lines(logged)
    assert line["event"] == "lost postgresql://u:[scrubbed]@h/d"
    assert (line["severity"], line["tenant_id"], line["pool"]) == ("error", "t-1", "cell-1")


def test_a_traceback_is_one_line_and_scrubbed(logged: io.StringIO) -> None:
    try:
        raise ValueError(f"password={SECRET}")  # noqa: TRY301  (a traceback is what is wanted)
    except ValueError:
        structlog.get_logger("strata").exception("failed", token=SECRET)

    (line,) = lines(logged)
    assert "ValueError: password=[scrubbed]" in str(line["exception"])
    assert SECRET not in logged.getvalue()


def test_lines_below_the_level_and_requests_uvicorn_repeats_are_left_out(logged: io.StringIO) -> None:
    structlog.get_logger("strata").debug("detail")
    logging.getLogger("strata").debug("detail")
    logging.getLogger("uvicorn.access").info("GET / 200")

    assert lines(logged) == []


def test_warnings_are_logged(logged: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old", UserWarning, stacklevel=1)

    (line,) = lines(logged)
    assert line["logger"] == "py.warnings"


def test_a_terminal_gets_text_without_secrets() -> None:
    stream = io.StringIO()
    with logging_as_it_was():
        configure_logging("cli", as_json=False, stream=stream)
        structlog.get_logger("strata").info("connected", dsn=f"postgresql://u:{SECRET}@h/d")

    assert "connected" in stream.getvalue()
    assert SECRET not in stream.getvalue()
