"""What the replication slots of other tenants' moves cost a tenant of the cell: the processor time of the slots' senders for
each of its transactions. Each sender decodes the whole database and sends nothing of it: the publications are a move's, of
a tenant that nobody writes to. Its own transaction is the one-line movement; its cost is measured beside.

Processor time alone is counted, from the kernel's accounts, so that who else uses the machine matters little.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec
import uvloop

from strata.migrator import publications
from strata.migrator.tables import Home, describe
from strata.platform.embedded.postgres import programs
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.tenants import NewTenant
from tests.bench import strata_side
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.cpu import busy_ns
from tests.bench.ground import Ground
from tests.bench.tables import Table
from tests.builders.events import until
from tests.builders.inventory import move, stocked

_PUBLICATION = "bench_of_nobody"
_CAUGHT_UP = """
SELECT count(*) = 0 FROM pg_replication_slots WHERE slot_type = 'logical' AND confirmed_flush_lsn < $1::text::pg_lsn
"""
_WITHIN_S = 120


class Plan(msgspec.Struct, frozen=True):
    slots: tuple[int, ...] = (0, 1, 4, 16)
    rounds: int = 3
    movements: int = 2000
    """In each round with each number of slots."""


class Cost(msgspec.Struct, frozen=True):
    """Processor time for each movement, µs."""

    senders: float
    others: float
    """All of PostgreSQL but the senders."""


async def _run(ground: Ground, plan: Plan) -> dict[str, Any]:
    async with strata_side.standing(ground) as runtime:
        tenants = []
        for slug in ("bench-still", "bench-busy"):
            await runtime.provisioning.create(NewTenant(slug=slug, name=slug, tier=Tier.SHARED), strata_side.ACTOR)
            tenants.append(await runtime.contexts.get_by_slug(slug))
        still, busy = tenants
        await stocked(runtime, busy, skus=1, bins=1, on_hand=1)
        await _publish(runtime, still)
        [cell] = [each for each in await runtime.registry.cells() if each.name == strata_side.CELL]
        found: dict[int, list[Cost]] = {count: [] for count in plan.slots}
        for _ in range(plan.rounds):
            for count in plan.slots:
                found[count].append(await _with(ground, runtime, busy, str(cell.database), count, plan.movements))
    return {"by_slots": {str(count): msgspec.to_builtins(costs) for count, costs in found.items()}}


async def _publish(runtime: Runtime, tenant: TenantContext) -> None:
    url = await runtime.registry.admin_url_of_cell(tenant.placement.cell)
    schema = tenant.placement.schema_name
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        tables = await describe(connection, schema)
    finally:
        await connection.close()
    await publications.create(Home(tenant.id, tenant.placement.cell, Tier.SHARED, schema, url), _PUBLICATION, tables)


async def _with(
    ground: Ground, runtime: Runtime, tenant: TenantContext, database: str, count: int, movements: int
) -> Cost:
    dsn = ground.dsn(database)
    admin = await asyncpg.connect(dsn)
    try:
        async with _senders(admin, dsn, count) as senders:
            spent, spent_by_senders = busy_ns(ground.postgres_pid), _all_of(senders)
            for _ in range(movements):
                async with runtime.tenants.transaction(tenant) as session:
                    await move(session, "receive", ("S-0", "B-0", 1))
            await _until_caught_up(admin)
            by_senders = _all_of(senders) - spent_by_senders
            by_all = busy_ns(ground.postgres_pid) - spent
    finally:
        await admin.close()
    return Cost(round(by_senders / movements / 1e3, 2), round((by_all - by_senders) / movements / 1e3, 2))


@asynccontextmanager
async def _senders(admin: asyncpg.Connection, dsn: str, count: int) -> AsyncIterator[Sequence[int]]:
    """Process numbers of that many senders, each with its slot."""
    receivers = []
    try:
        for number in range(count):
            slot = f"bench_{number}"
            await admin.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", slot)
            options = ["-o", "proto_version=1", "-o", f"publication_names={_PUBLICATION}"]
            command = [
                str(programs() / "pg_recvlogical"),
                "-d",
                dsn,
                "-S",
                slot,
                *options,
                "-f",
                "/dev/null",
                "--start",
            ]
            command += ["--fsync-interval=1", "--status-interval=1"]
            receivers.append(await asyncio.create_subprocess_exec(*command))
        await until(lambda: _streaming(admin, count), "streams", _WITHIN_S)
        await _until_caught_up(admin)
        yield [row["pid"] for row in await admin.fetch("SELECT pid FROM pg_stat_replication")]
    finally:
        for receiver in receivers:
            receiver.terminate()
            await receiver.wait()
        await until(lambda: _streaming(admin, 0), "the end of the streams", _WITHIN_S)
        await admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


async def _streaming(admin: asyncpg.Connection, count: int) -> bool:
    return bool(await admin.fetchval("SELECT count(*) = $1 FROM pg_stat_replication", count))


async def _until_caught_up(admin: asyncpg.Connection) -> None:
    position = await admin.fetchval("SELECT pg_current_wal_flush_lsn()::text")
    await until(lambda: admin.fetchval(_CAUGHT_UP, position), "the senders", _WITHIN_S)


def _all_of(pids: Sequence[int]) -> int:
    return sum(busy_ns(pid) for pid in pids)


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    return uvloop.run(_run(stand.ground, plan))


def tables(found: dict[str, Any]) -> list[Table]:
    head = ["slots of others' moves", "their senders, µs for each movement", "for each slot", "PostgreSQL otherwise"]
    rows = [[*head, "share"]]
    for count, costs in found["by_slots"].items():
        senders, others = (sum(each[who] for each in costs) / len(costs) for who in ("senders", "others"))
        each_slot = f"{senders / int(count):.1f}" if int(count) else ""
        rows.append([count, f"{senders:.1f}", each_slot, f"{others:,.0f}", f"{senders / others:.1%}"])
    return [Table(rows)]


BENCHMARK = Benchmark(
    "slots", run, tables, plan=Plan(), quick=Plan(slots=(0, 4), rounds=1, movements=500), durable=False
)
