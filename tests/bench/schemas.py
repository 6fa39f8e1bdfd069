"""What schemas cost: making a tenant, one ADD COLUMN over many, and seeing that there is nothing to do.

Beside django-tenants, whose project has the same tables. Each is asked for the whole act: a tenant with its
registration; `strata db upgrade` and `migrate_schemas` as processes, from their start to their end.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from pydantic import SecretStr

from strata.platform.database import addresses
from strata.platform.settings import ProvisioningSettings, Settings
from strata.runtime import MIGRATIONS, Runtime, open_runtime
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.cells import Chains
from strata.tenancy.provisioning.servers import add_server
from strata.tenancy.provisioning.tenants import NewTenant
from tests.bench.ground import Ground
from tests.bench.machine import ROOT
from tests.bench.peer_environment import PeerEnvironment

_CATALOG, _PREFIX, _CELL, _SERVER, _ACTOR = "bench_schemas_catalog", "bench_schemas", "many", "server-1", "bench"
_PEER_DATABASE = "bench_schemas_django"
_AT_ONCE = 4
_REVISION = """
from alembic import op

revision = "9001"
down_revision = "{before}"


def upgrade():
    op.execute("ALTER TABLE product ADD COLUMN bench_colour text")
"""


class SchemasPlan(msgspec.Struct, frozen=True):
    schemas: int = 1000
    peer_schemas: int = 1000
    """Of django-tenants, whose time for each grows with their number: with fewer it looks better than it is."""
    created: int = 20
    """Tenants made one by one and timed, of each side in turn."""


QUICK = SchemasPlan(schemas=200, peer_schemas=60, created=8)


def run(ground: Ground, peers: PeerEnvironment, plan: SchemasPlan) -> dict[str, Any]:
    asyncio.run(ground.make_database(_PEER_DATABASE))
    asyncio.run(ground.make_database(_CATALOG))
    django = _Django(ground, peers)
    created = asyncio.run(_create(ground, django, plan))
    upgrade = _strata_upgrade(ground)
    strata = {"ADD COLUMN": _timed(*upgrade), "nothing to do": _timed(*upgrade)}
    strata["nothing to do, in a running process"] = asyncio.run(_look(ground))
    django.create(timed=0, more=plan.peer_schemas - plan.created, first=plan.created + 1)
    peer = {"ADD COLUMN": django.migrate(), "nothing to do": django.migrate()}
    per_schema = {work: strata[work] / plan.schemas / (peer[work] / plan.peer_schemas) for work in peer}
    return {
        "tenant created, ms": created,
        "all schemas, s": {"strata": strata, "django-tenants": peer},
        "times faster per schema": {work: 1 / ratio for work, ratio in per_schema.items()},
    }


def show(found: dict[str, Any]) -> None:
    created, everything = found["tenant created, ms"], found["all schemas, s"]
    for name, median in created["median"].items():
        print(f"a tenant created by {name}: {median:.1f} ms")
    for name, works in everything.items():
        for work, seconds in works.items():
            print(f"{name}, {work}: {seconds:.2f} s")
    for name, ratio in {**created["times faster"], **found["times faster per schema"]}.items():
        print(f"{name}: {ratio:.1f} times faster than django-tenants")


async def _create(ground: Ground, django: _Django, plan: SchemasPlan) -> dict[str, Any]:
    """One of each in turn, so that all see the same machine; then the rest of Strata's."""
    times: dict[str, list[float]] = {"strata, kept ready": [], "strata, none ready": [], "django-tenants": []}
    async with open_runtime(_settings(ground), upgrade=True) as runtime:
        await add_server(
            runtime.registry,
            _SERVER,
            addresses.parse(ground.dsn("postgres")),
            region="local",
            role_prefix=_PREFIX,
            actor=_ACTOR,
        )
        await runtime.cells.add_shared(_CELL, _SERVER, actor=_ACTOR, capacity=plan.schemas + 1)
        await asyncio.to_thread(django.create, timed=0, more=0, first=0)
        for number in range(plan.created):
            times["strata, none ready"].append(await _one(runtime, f"cold{number}"))
            await runtime.provisioning.stock.refill()
            times["strata, kept ready"].append(await _one(runtime, f"warm{number}"))
            times["django-tenants"] += await asyncio.to_thread(django.create, timed=1, more=0, first=number + 1)
        turns = asyncio.Semaphore(_AT_ONCE)

        async def in_turn(slug: str) -> None:
            async with turns:
                await _one(runtime, slug)

        await asyncio.gather(*(in_turn(f"more{number}") for number in range(plan.schemas - 2 * plan.created)))
    medians = {name: statistics.median(each) for name, each in times.items()}
    return {
        "median": medians,
        "times faster": {
            name: medians["django-tenants"] / median for name, median in medians.items() if name != "django-tenants"
        },
        "each": times,
    }


async def _one(runtime: Runtime, slug: str) -> float:
    begun = time.perf_counter()
    await runtime.provisioning.create(NewTenant(slug=slug, name=slug, tier=Tier.SCHEMA, cell=_CELL), _ACTOR)
    return (time.perf_counter() - begun) * 1e3


async def _look(ground: Ground) -> float:
    """The state of the catalog and of every schema; a process that runs already has no start to pay for."""
    async with open_runtime(_settings(ground)) as runtime:
        begun = time.perf_counter()
        await runtime.upgrades.status()
        return time.perf_counter() - begun


def _settings(ground: Ground) -> Settings:
    return Settings(
        database_url=SecretStr(ground.dsn(_CATALOG)),
        redis_url=SecretStr(ground.redis.url),
        data_dir=ground.directory,
        role_prefix=_PREFIX,
        provisioning=ProvisioningSettings(spare_schemas=1),
    )


def _strata_upgrade(ground: Ground) -> tuple[Sequence[str], dict[str, str]]:
    """`strata db upgrade` of a release with one more revision."""
    release = ground.directory / "release"
    shutil.copytree(MIGRATIONS, release, ignore=shutil.ignore_patterns("__pycache__"))
    before = Chains.at(MIGRATIONS).tenant.head
    (release / "tenant" / "versions" / "9001_bench.py").write_text(_REVISION.format(before=before))
    environment = {
        "STRATA_DATABASE_URL": ground.dsn(_CATALOG),
        "STRATA_REDIS_URL": ground.redis.url,
        "STRATA_DATA_DIR": str(ground.directory),
        "STRATA_ROLE_PREFIX": _PREFIX,
    }
    return [sys.executable, "-m", "tests.builders.release_process", str(release), "db", "upgrade"], environment


def _timed(command: Sequence[str], environment: dict[str, str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        message = f"{command} failed:\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
        raise RuntimeError(message)
    return time.perf_counter() - begun


class _Django:
    def __init__(self, ground: Ground, peers: PeerEnvironment) -> None:
        self._peers = peers
        self._environment = {
            "BENCH_DATABASE_URL": ground.dsn(_PEER_DATABASE),
            "DJANGO_SETTINGS_MODULE": "tests.bench.peers.schemas.warehouse_settings",
        }

    def create(self, *, timed: int, more: int, first: int) -> list[float]:
        """Milliseconds of each create_schema; without what Python and Django take to start."""
        program = [self._peers.program("python"), "-m", "tests.bench.peers.schemas.create_tenants"]
        options = ["--timed", str(timed), "--more", str(more), "--first", str(first)]
        times: list[float] = json.loads(self._peers.run([*program, *options], self._environment))
        return times

    def migrate(self) -> float:
        """One more migration than the tenants were made with; again, nothing."""
        program = [self._peers.program("python"), "-m", "django", "migrate_schemas", "--tenant"]
        return _timed(
            [*program, "--executor=multiprocessing", "--verbosity=0"], {**self._environment, "BENCH_NEXT_RELEASE": "1"}
        )
