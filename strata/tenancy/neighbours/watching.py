"""Every `window_s`, each process looks at what its tenants did in each cell, and writes down what stands out.

It judges by what passes through itself: a tenant's requests are spread over the processes, and so is what its neighbours
feel. Processes that find the same share one finding. Nothing here is on the way of a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from strata.platform.errors import StrataError
from strata.platform.settings import UsageSettings
from strata.tenancy.context_cache import ContextCache
from strata.tenancy.neighbours.advice import advise
from strata.tenancy.neighbours.book import NeighbourBook
from strata.tenancy.neighbours.detector import Detector, Found, Sample
from strata.tenancy.usage.meter import UsageMeter

log = structlog.get_logger(__name__)

_SECOND = 1_000_000_000
_REPORT_EVERY = 5
_MOST_REPORTED = 20

Key = tuple[str, UUID]


class _Seen(msgspec.Struct, frozen=True):
    """A tenant's counters in one cell at the end of a window."""

    statements: int = 0
    rows: int = 0
    database_ns: int = 0
    wait_ns: int = 0


class NeighbourWatch:
    """One per process; begins by itself when somebody is counted."""

    def __init__(
        self,
        meter: UsageMeter,
        contexts: ContextCache,
        book: NeighbourBook,
        settings: UsageSettings,
        processes: Callable[[], int] = lambda: 1,
    ) -> None:
        """`processes`: how many serve; requests are spread over them evenly, as far as one of them can tell."""
        self._meter = meter
        self._processes = processes
        self._contexts = contexts
        self.book = book
        self._window_s = settings.neighbours_window_s
        self._detectors: dict[str, Detector] = {}
        self._seen: dict[Key, _Seen] = {}
        self._asked: dict[UUID, tuple[int, int]] = {}
        self._cpu_s = _cpu_s()
        self._windows = 0
        self._task: asyncio.Task[None] | None = None
        self._process = secrets.token_hex(6)
        meter.on_use.append(self._begin)
        self.found: dict[str, list[Found]] = {}
        """By cell, in the last window."""

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="neighbours")

    async def _run(self) -> None:
        ended = time.monotonic()
        while True:
            await asyncio.sleep(self._window_s)
            # A busy process wakes late: what it did in the longer time was done in the longer time.
            now = time.monotonic()
            try:
                await self.window(now - ended)
            except (SQLAlchemyError, StrataError, OSError) as error:
                # Without the catalog there is nobody to tell; the next window is judged all the same.
                log.warning("neighbours.not_written", error=str(error))
            ended = now

    async def window(self, took_s: float) -> None:
        did, asked = self._did(), self._asked_since()
        by_cell: dict[str, dict[UUID, Sample]] = {}
        for (cell, tenant_id), each in did.items():
            busy_ns = each.database_ns + each.wait_ns
            mean_s = busy_ns / each.statements / _SECOND if each.statements else 0.0
            sample = Sample(each.database_ns / _SECOND / took_s, each.statements, mean_s)
            by_cell.setdefault(cell, {})[tenant_id] = sample
        for cell in by_cell:
            self._detectors.setdefault(cell, Detector())
        self.found = {cell: detector.window(by_cell.get(cell, {})) for cell, detector in self._detectors.items()}
        self._windows += 1
        for cell, found in self.found.items():
            for one in found:
                await self._tell(cell, one, asked, took_s)
        if self._windows % _REPORT_EVERY == 0:
            await self._report(did, asked, took_s)

    async def _tell(self, cell: str, found: Found, asked: Mapping[UUID, tuple[int, int]], took_s: float) -> None:
        await self.book.note(cell, found)
        if found.tenant_id is None:
            return
        # A limit holds over all processes, and this one sees its part of the requests.
        requests = asked.get(found.tenant_id, (0, 0))[0] * max(1, self._processes())
        context = await self._contexts.get_by_id(found.tenant_id)
        await self.book.propose(advise(found, context, requests_per_minute=requests * 60 / took_s))

    async def _report(self, did: Mapping[Key, _Seen], asked: Mapping[UUID, tuple[int, int]], took_s: float) -> None:
        cpu_s, self._cpu_s = self._cpu_s, _cpu_s()
        cpu = (self._cpu_s - cpu_s) / (took_s * _REPORT_EVERY)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        worked = sum(compute_ns for _, compute_ns in asked.values()) or 1
        most = sorted(did.items(), key=lambda item: item[1].database_ns, reverse=True)[:_MOST_REPORTED]
        loads: list[dict[str, Any]] = []
        for (cell, tenant_id), each in most:
            part = asked.get(tenant_id, (0, 0))[1] / worked
            loads.append(
                {
                    "cell": cell,
                    "tenant_id": tenant_id,
                    "connections": each.database_ns / _SECOND / took_s,
                    "statements": each.statements / took_s,
                    "rows_touched": each.rows / took_s,
                    "waits_s": each.wait_ns / _SECOND / took_s,
                    "cpu_estimate": cpu * part,
                    "memory_estimate_bytes": int(memory * part),
                }
            )
        await self.book.note_loads(self._process, loads)
        await self.book.note_statements(self._meter.slow.take())
        await self.book.end_unseen()

    def _did(self) -> dict[Key, _Seen]:
        """By cell and tenant, since the last window."""
        did: dict[Key, _Seen] = {}
        now: dict[Key, _Seen] = {}
        for key, load in self._meter.loads.items():
            seen = now[key] = _Seen(load.statements, load.rows, load.database_ns, load.wait_ns)
            before = self._seen.get(key) or _Seen()
            if seen != before:
                did[key] = _Seen(
                    seen.statements - before.statements,
                    seen.rows - before.rows,
                    seen.database_ns - before.database_ns,
                    seen.wait_ns - before.wait_ns,
                )
        self._seen = now
        return did

    def _asked_since(self) -> dict[UUID, tuple[int, int]]:
        """Requests and the nanoseconds they took, since the last window."""
        now = {each: (tally.requests, tally.compute_ns) for each, tally in self._meter.tallies.items()}
        asked = {
            each: (requests - self._asked.get(each, (0, 0))[0], took_ns - self._asked.get(each, (0, 0))[1])
            for each, (requests, took_ns) in now.items()
        }
        self._asked = now
        return asked


def _cpu_s() -> float:
    return time.process_time()
