"""The read of a product by its SKU beside django-tenants: a schema for each tenant, chosen by the Host header."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from tests.bench import goods
from tests.bench.ground import Ground, Server
from tests.bench.load import LoadGenerator, http_request
from tests.bench.parties import READ, Party
from tests.bench.peer_environment import PeerEnvironment
from tests.bench.slices import Plan, Subject, measure, results

NAME = "django-tenants"
_DATABASE = "bench_django"
_HOST = "bench.localhost"
# As many processes as this machine has cores, and threads that wait for the database: more than Strata is given.
_WORKERS, _THREADS = 2, 4


def run(
    ground: Ground, load: LoadGenerator, peers: PeerEnvironment, parties: Sequence[Party], plan: Plan
) -> dict[str, Any]:
    server = _prepare(ground, peers)
    subjects = [Subject(NAME, f"{NAME}: {READ}", server.pid)]
    load.define(
        subjects[0].target,
        server.port,
        [http_request("GET", f"/api/v1/products/by-sku/{sku}", _HOST) for sku in goods.SKUS],
    )
    subjects += [Subject(party.name, party.target(READ), party.server.pid) for party in parties]
    found = {
        READ: {
            str(connections): results(
                measure(load, subjects, plan, connections=connections, postgres_pid=ground.postgres_pid), (NAME,)
            )
            for connections in plan.connections
        }
    }
    ground.stop(server)
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
