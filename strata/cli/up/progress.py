"""Says how far `strata up` is: steps with their times on a terminal, JSON lines for a program."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from strata.cli.output import console, print_json


class Step(StrEnum):
    SERVERS = "servers"
    CATALOG = "catalog"
    CELLS = "cells"
    TENANTS = "tenants"
    STOCK = "stock"
    SERVING = "serving"


_SHOWN = {
    Step.SERVERS: "Starting PostgreSQL and Redis",
    Step.CATALOG: "Bringing the catalog up to date",
    Step.CELLS: "Preparing servers and cells",
    Step.TENANTS: "Making the demo tenants",
    Step.STOCK: "Giving them stock",
    Step.SERVING: "Opening the port",
}


class Progress:
    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._console = console()

    @contextmanager
    def step(self, step: Step) -> Iterator[None]:
        shown = _SHOWN[step]
        if self._as_json:
            print_json({"event": "progress", "step": step, "text": shown})
            yield
            return
        started = time.monotonic()
        with self._console.status(shown):
            yield
        self._console.print(f"✓ {shown} ({time.monotonic() - started:.1f} s)")
