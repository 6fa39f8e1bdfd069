"""python -m tests.bench.imports [--rounds N] [--seconds S] [--connections N] [--rows N] [--out DIRECTORY]

What a tenant in the same cell feels of its neighbour's import of 10,000 SKUs: the same reads of the same tenant, with and
without the import going on, in turn. The import is done by a worker process, as in earnest.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import structlog

from strata.tenancy.model import Tier
from tests.bench import goods, machine, report, strata_side
from tests.bench.ground import Ground, Server, ground
from tests.bench.load import LoadGenerator, Slice, http_request
from tests.bench.machine import ROOT
from tests.bench.slices import Measured, quantiles_us
from tests.bench.strata_side import BenchTenant

_POLL_S = 0.2


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
def worker(stage: Ground) -> Iterator[None]:
    environment = {
        "STRATA_DATABASE_URL": stage.dsn(strata_side.CATALOG),
        "STRATA_REDIS_URL": stage.redis.url,
        "STRATA_DATA_DIR": str(stage.directory),
        "STRATA_ROLE_PREFIX": "bench",
    }
    command = [sys.executable, "-m", "strata", "worker", "--json"]
    with (stage.directory / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def measure(load: LoadGenerator, importer: Importer, plan: Plan) -> dict[str, Any]:
    measured = {"without": Measured(), "with": Measured()}
    imported: list[dict[str, float]] = []
    load.run("neighbour", connections=plan.connections, seconds=1)
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
        print(f"round {number + 1} of {plan.rounds}", flush=True)
    pairs = list(zip(measured["with"].rounds, measured["without"].rounds, strict=True))
    return {
        name: {"requests": len(each.latencies_ns), "latency_us": quantiles_us(each.latencies_ns), "rounds": each.rounds}
        for name, each in measured.items()
    } | {
        "with / without": {
            key: {
                "of all": round(_all(measured, "with", key) / _all(measured, "without", key), 3),
                "median of rounds": round(median(a[key] / b[key] for a, b in pairs), 3),
            }
            for key in ("p50", "p95", "p99")
        },
        "import": imported,
    }


def _all(measured: dict[str, Measured], name: str, key: str) -> float:
    return quantiles_us(measured[name].latencies_ns)[key]


def _slice(load: LoadGenerator, plan: Plan) -> Slice:
    return load.run("neighbour", connections=plan.connections, seconds=plan.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.imports", description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=report.DIRECTORY)
    given = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    plan = Plan(given.rounds, given.seconds, given.connections, given.rows)
    with ground() as stage, LoadGenerator() as load:
        tenants = asyncio.run(strata_side.prepare(stage))
        server = strata_side.serve(stage)
        neighbour = next(tenant for tenant in tenants if tenant.tier is Tier.SHARED)
        other = next(tenant for tenant in tenants if tenant.tier is Tier.SCHEMA)
        asked = [
            http_request("GET", f"/api/v1/products/by-sku/{sku}", neighbour.host, headers=neighbour.headers)
            for sku in goods.SKUS[:500]
        ]
        load.define("neighbour", server.port, asked)
        with worker(stage):
            found = measure(load, Importer(server, other, plan.rows), plan)
    print(
        msgspec.json.format(msgspec.json.encode({name: found[name] for name in ("with / without", "import")})).decode()
    )
    print(f"Raw results: {report.save('imports', machine.facts(None), msgspec.to_builtins(plan), found, given.out)}")


if __name__ == "__main__":
    main()
