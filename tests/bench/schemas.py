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

from strata.migrations import MIGRATIONS
from strata.platform.settings import ProvisioningSettings
from strata.runtime import Runtime, open_runtime
from strata.tenancy.cell.schema_revisions import Chains
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.tenants import NewTenant
from tests.bench import strata_side
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.ground import Ground
from tests.bench.machine import ROOT
from tests.bench.peer_environment import PeerEnvironment
from tests.bench.tables import Table

_PEER = "django-tenants"
_PEER_DATABASE = "bench_schemas_django"
_AT_ONCE = 4
_ONE_SPARE = ProvisioningSettings(spare_schemas=1)
_REVISION = """
from alembic import op

revision = "9001"
down_revision = "{before}"


def upgrade():
    op.execute("ALTER TABLE product ADD COLUMN bench_colour text")
"""


class SchemasPlan(msgspec.Struct, frozen=True):
    schemas: int = 1000
    peer_schemas: int = 400
    """Of django-tenants, whose time for each grows with their number: with fewer it looks better than it is."""
    created: int = 20
    """Tenants made one by one and timed, of each side in turn."""


def run(stand: Stand, plan: SchemasPlan) -> dict[str, Any]:
    ground = stand.ground
    asyncio.run(ground.make_database(_PEER_DATABASE))
    django = _Django(ground, stand.peers)
    created = asyncio.run(_create(ground, django, plan))
    upgrade = _strata_upgrade(ground)
    strata = {"ADD COLUMN": _timed(*upgrade), "nothing to do": _timed(*upgrade)}
    strata["nothing to do, in a running process"] = asyncio.run(_look(ground))
    django.create(timed=0, more=plan.peer_schemas - plan.created, first=plan.created + 1)
    peer = {"ADD COLUMN": django.migrate(), "nothing to do": django.migrate()}
    per_schema = {work: strata[work] / plan.schemas / (peer[work] / plan.peer_schemas) for work in peer}
    return {
        "schemas": {"strata": plan.schemas, _PEER: plan.peer_schemas},
        "tenant created, ms": created,
        "all schemas, s": {"strata": strata, _PEER: peer},
        "times faster per schema": {work: 1 / ratio for work, ratio in per_schema.items()},
    }


def tables(found: dict[str, Any]) -> list[Table]:
    created, everything, schemas = found["tenant created, ms"], found["all schemas, s"], found["schemas"]
    peer = created["median"][_PEER]
    one = [["a tenant created", "ms", "times faster"], [_PEER, f"{peer:.0f}", ""]]
    one += [[name, f"{created['median'][name]:.1f}", f"{n:.1f}"] for name, n in created["times faster"].items()]
    head = ["every schema", f"Strata, {schemas['strata']:,}", f"{_PEER}, {schemas[_PEER]:,}", "times faster, a schema"]
    rows = [head]
    for work, seconds in everything["strata"].items():
        theirs, ratio = everything[_PEER].get(work), found["times faster per schema"].get(work)
        rows.append([work, f"{seconds:.2f} s", f"{theirs:.0f} s" if theirs else "", f"{ratio:.0f}" if ratio else ""])
    return [Table(one), Table(rows)]


async def _create(ground: Ground, django: _Django, plan: SchemasPlan) -> dict[str, Any]:
    """One of each in turn, so that all see the same machine; then the rest of Strata's."""
    times: dict[str, list[float]] = {"strata, kept ready": [], "strata, none ready": [], _PEER: []}
    async with strata_side.standing(ground, provisioning=_ONE_SPARE) as runtime:
        await asyncio.to_thread(django.create, timed=0, more=0, first=0)
        for number in range(plan.created):
            times["strata, none ready"].append(await _one(runtime, f"cold{number}"))
            await runtime.provisioning.stock.refill()
            times["strata, kept ready"].append(await _one(runtime, f"warm{number}"))
            times[_PEER] += await asyncio.to_thread(django.create, timed=1, more=0, first=number + 1)
        turns = asyncio.Semaphore(_AT_ONCE)

        async def in_turn(slug: str) -> None:
            async with turns:
                await _one(runtime, slug)

        await asyncio.gather(*(in_turn(f"more{number}") for number in range(plan.schemas - 2 * plan.created)))
    medians = {name: statistics.median(each) for name, each in times.items()}
    return {
        "median": medians,
        "times faster": {name: medians[_PEER] / median for name, median in medians.items() if name != _PEER},
        "each": times,
    }


async def _one(runtime: Runtime, slug: str) -> float:
    begun = time.perf_counter()
    await runtime.provisioning.create(NewTenant(slug=slug, name=slug, tier=Tier.SCHEMA), strata_side.ACTOR)
    return (time.perf_counter() - begun) * 1e3


async def _look(ground: Ground) -> float:
    """The state of the catalog and of every schema; a process that runs already has no start to pay for."""
    async with open_runtime(strata_side.settings(ground)) as runtime:
        begun = time.perf_counter()
        await runtime.upgrades.survey.status()
        return time.perf_counter() - begun


def _strata_upgrade(ground: Ground) -> tuple[Sequence[str], dict[str, str]]:
    """`strata db upgrade` of a release with one more revision."""
    release = ground.directory / "release"
    shutil.copytree(MIGRATIONS, release, ignore=shutil.ignore_patterns("__pycache__"))
    before = Chains.at(MIGRATIONS).tenant.head
    (release / "tenant" / "versions" / "9001_bench.py").write_text(_REVISION.format(before=before))
    command = [sys.executable, "-m", "tests.builders.release_process", str(release), "db", "upgrade"]
    return command, strata_side.environment(ground)


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


BENCHMARK = Benchmark(
    "schemas",
    run,
    tables,
    plan=SchemasPlan(),
    quick=SchemasPlan(schemas=200, peer_schemas=60, created=8),
    peers=True,
)
