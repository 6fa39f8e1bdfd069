"""The read of a product by its SKU beside django-tenants: a schema for each tenant, chosen by the Host header."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.bench import goods, slices
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.ground import Ground, Server
from tests.bench.load import http_request
from tests.bench.parties import READ
from tests.bench.peer_environment import PeerEnvironment
from tests.bench.slices import Plan, Subject, measure, results

NAME = "django-tenants"
_DATABASE = "bench_django"
_HOST = "bench.localhost"
# As many processes as this machine has cores, and threads that wait for the database: more than Strata is given.
_WORKERS, _THREADS = 2, 4


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    strata = stand.strata_parties
    server = _prepare(stand.ground, stand.peers)
    subjects = [Subject(NAME, f"{NAME}: {READ}", server.pid)]
    stand.load.define(
        subjects[0].target,
        server.port,
        [http_request("GET", f"/api/v1/products/by-sku/{sku}", _HOST) for sku in goods.SKUS],
    )
    subjects += [Subject(party.name, party.target(READ), party.server.pid) for party in strata]
    found = {
        READ: {
            str(connections): results(
                measure(stand.load, subjects, plan, connections=connections, postgres_pid=stand.ground.postgres_pid),
                (NAME,),
            )
            for connections in plan.connections
        }
    }
    stand.ground.stop(server)
    return {"work": found}


def _prepare(ground: Ground, peers: PeerEnvironment) -> Server:
    asyncio.run(ground.make_database(_DATABASE))
    environment = {
        "BENCH_DATABASE_URL": ground.dsn(_DATABASE),
        "DJANGO_SETTINGS_MODULE": "tests.bench.peers.schemas.settings",
    }
    skus = ground.directory / "skus.json"
    skus.write_text(json.dumps(goods.SKUS))
    prepare = [peers.program("python"), "-m", "tests.bench.peers.schemas.prepare", "--skus", str(skus), "--host", _HOST]
    peers.run(prepare, environment)
    asyncio.run(ground.settle(_DATABASE))
    command = [peers.program("gunicorn"), "django.core.wsgi:get_wsgi_application()", "--bind", "127.0.0.1:{port}"]
    command += [
        "--worker-class",
        "gthread",
        "--workers",
        str(_WORKERS),
        "--threads",
        str(_THREADS),
        "--keep-alive",
        "60",
    ]
    return ground.start(NAME, command, environment)


BENCHMARK = Benchmark(
    NAME,
    run,
    slices.tables,
    plan=Plan(rounds=8, seconds=0.5),
    quick=Plan(rounds=2, seconds=0.25),
    peers=True,
    shared_stand=True,
)
