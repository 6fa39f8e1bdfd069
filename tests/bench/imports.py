"""What a tenant in the same cell feels of its neighbour's import of 10,000 SKUs: the same reads of the same tenant, with and
without the import going on, in turn. The import is done by a worker process, as in earnest.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import msgspec

from strata.tenancy.model import Tier
from tests.bench import goods, strata_side
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.ground import Ground, Server
from tests.bench.load import LoadGenerator, Slice, http_request
from tests.bench.machine import ROOT
from tests.bench.slices import Measured, quantiles_us
from tests.bench.strata_side import BenchTenant
from tests.bench.tables import Table

_POLL_S = 0.2
_NEIGHBOUR = "neighbour"
_RATIO = "with / without"
_SHOWN = ("p50", "p95", "p99")


class Plan(msgspec.Struct, frozen=True):
    rounds: int
    seconds: float
    connections: int
    rows: int


class Importer:
    """The neighbour: uploads a file of new products and cancels what is left of it."""

    def __init__(self, server: Server, tenant: BenchTenant, rows: int) -> None:
        self._server = server
        self._tenant = tenant
        self._rows = rows
        self._files = 0

    def begin(self) -> str:
        self._files += 1
        rows = "".join(f"imp{self._files}-{n},Imported {n},5\n" for n in range(self._rows))
        run = self._ask("POST", "/api/v1/imports?mapping=stock-list", f"sku,name,quantity\n{rows}".encode())
        return f"/api/v1/imports/{run['id']}"

    def state(self, address: str) -> dict[str, Any]:
        return self._ask("GET", address)

    def cancel(self, address: str) -> None:
        self._ask("POST", f"{address}/cancel")

    def _ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._server.port}{path}",
            data=body if method == "POST" else None,
            method=method,
            headers={**self._tenant.headers, "Host": self._tenant.host},
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - as above
            found: dict[str, Any] = msgspec.json.decode(answer.read())
        return found


@contextmanager
def worker(ground: Ground) -> Iterator[None]:
    environment = {**os.environ, **strata_side.environment(ground)}
    command = [sys.executable, "-m", "strata", "worker", "--json"]
    with (ground.directory / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _measure(load: LoadGenerator, importer: Importer, plan: Plan) -> dict[str, Any]:
    measured = {"without": Measured(), "with": Measured()}
    imported: list[dict[str, float]] = []
    load.run(_NEIGHBOUR, connections=plan.connections, seconds=1)
    for number in range(plan.rounds):
        for name in ("without", "with") if number % 2 else ("with", "without"):
            if name == "without":
                done = _slice(load, plan)
            else:
                address = importer.begin()
                while importer.state(address)["state"] == "pending":
                    time.sleep(_POLL_S)
                before, began = importer.state(address)["rows_read"], time.monotonic()
                done = _slice(load, plan)
                after, took = importer.state(address), time.monotonic() - began
                if after["state"] == "running":
                    importer.cancel(address)
                imported.append({"rows_per_s": round((after["rows_read"] - before) / took, 1)})
            measured[name].latencies_ns += done.latencies_ns
            measured[name].rounds.append(quantiles_us(done.latencies_ns))
    pairs = list(zip(measured["with"].rounds, measured["without"].rounds, strict=True))
    return {
        name: {"requests": len(each.latencies_ns), "latency_us": quantiles_us(each.latencies_ns), "rounds": each.rounds}
        for name, each in measured.items()
    } | {
        _RATIO: {
            key: {
                "of all": round(_all(measured, "with", key) / _all(measured, "without", key), 3),
                "median of rounds": round(median(a[key] / b[key] for a, b in pairs), 3),
            }
            for key in _SHOWN
        },
        "import": imported,
    }


def _all(measured: dict[str, Measured], name: str, key: str) -> float:
    return quantiles_us(measured[name].latencies_ns)[key]


def _slice(load: LoadGenerator, plan: Plan) -> Slice:
    return load.run(_NEIGHBOUR, connections=plan.connections, seconds=plan.seconds)


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    ground, load = stand.ground, stand.load
    tenants = asyncio.run(strata_side.prepare(ground))
    server = strata_side.serve(ground)
    neighbour = next(tenant for tenant in tenants if tenant.tier is Tier.SHARED)
    other = next(tenant for tenant in tenants if tenant.tier is Tier.SCHEMA)
    asked = [
        http_request("GET", f"/api/v1/products/by-sku/{sku}", neighbour.host, headers=neighbour.headers)
        for sku in goods.SKUS[:500]
    ]
    load.define(_NEIGHBOUR, server.port, asked)
    with worker(ground):
        return _measure(load, Importer(server, other, plan.rows), plan)


def tables(found: dict[str, Any]) -> list[Table]:
    rows = [["the neighbour's read", "p50 µs", "p95", "p99"]]
    for name in ("without", "with"):
        latency = found[name]["latency_us"]
        rows.append([f"{name} the import", *(f"{latency[quantile]:,.0f}" for quantile in _SHOWN)])
    rows += [
        [f"with ÷ without, {kind}", *(f"{found[_RATIO][quantile][kind]:.2f}" for quantile in _SHOWN)]
        for kind in ("of all", "median of rounds")
    ]
    rates = [f"{each['rows_per_s']:,.0f}" for each in found["import"]]
    return [Table(rows), Table([["", "rows/s, in each round"], ["the import meanwhile", ", ".join(rates)]])]


BENCHMARK = Benchmark(
    "imports",
    run,
    tables,
    plan=Plan(rounds=8, seconds=4.0, connections=1, rows=10_000),
    quick=Plan(rounds=2, seconds=2.0, connections=1, rows=10_000),
)
