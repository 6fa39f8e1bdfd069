"""What the replication slots of other tenants' moves cost a tenant of the cell: the processor time of the slots' senders for
each of its transactions. Each sender decodes the whole database and sends nothing of it: the publications are a move's, of
a tenant that nobody writes to. Its own transaction is the one-line movement; its cost is measured beside.

Processor time alone is counted, from the kernel's accounts, so that who else uses the machine matters little.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
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
_WAYS = {"as it is written": False, "in one go afterwards": True}
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


class _Stage(msgspec.Struct, frozen=True):
    runtime: Runtime
    tenant: TenantContext
    """The busy one."""
    admin: asyncpg.Connection
    dsn: str
    """Of the cell."""
    postgres_pid: int
    movements: int


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
        dsn = ground.dsn(str(cell.database))
        found: dict[str, dict[str, list[Cost]]] = {}
        admin = await asyncpg.connect(dsn)
        try:
            stage = _Stage(runtime, busy, admin, dsn, ground.postgres_pid, plan.movements)
            for _ in range(plan.rounds):
                for count in plan.slots:
                    for way, at_once in _WAYS.items() if count else [("", False)]:
                        cost = await _with(stage, count, at_once=at_once)
                        found.setdefault(str(count), {}).setdefault(way, []).append(cost)
        finally:
            await admin.close()
    return {"by_slots": msgspec.to_builtins(found)}


async def _publish(runtime: Runtime, tenant: TenantContext) -> None:
    url = await runtime.registry.admin_url_of_cell(tenant.placement.cell)
    schema = tenant.placement.schema_name
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        tables = await describe(connection, schema)
    finally:
        await connection.close()
    await publications.create(Home(tenant.id, tenant.placement.cell, Tier.SHARED, schema, url), _PUBLICATION, tables)


async def _with(stage: _Stage, count: int, *, at_once: bool) -> Cost:
    async with _slots(stage.admin, count), AsyncExitStack() as receiving:
        if not at_once:
            await receiving.enter_async_context(_receivers(stage, count))
        spent, spent_by_senders = busy_ns(stage.postgres_pid), await _by_senders(stage.admin)
        for _ in range(stage.movements):
            async with stage.runtime.tenants.transaction(stage.tenant) as session:
                await move(session, "receive", ("S-0", "B-0", 1))
        if at_once:
            await receiving.enter_async_context(_receivers(stage, count))
        await _until_caught_up(stage.admin)
        by_senders = await _by_senders(stage.admin) - spent_by_senders
        by_all = busy_ns(stage.postgres_pid) - spent
    each = stage.movements * 1e3
    return Cost(round(by_senders / each, 2), round((by_all - by_senders) / each, 2))


@asynccontextmanager
async def _slots(admin: asyncpg.Connection, count: int) -> AsyncIterator[None]:
    for number in range(count):
        await admin.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", _slot(number))
    try:
        yield
    finally:
        await admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


@asynccontextmanager
async def _receivers(stage: _Stage, count: int) -> AsyncIterator[None]:
    """One for each slot, streaming and up with the log when the block begins."""
    options = ["-o", "proto_version=1", "-o", f"publication_names={_PUBLICATION}", "--status-interval=1"]
    command = [str(programs() / "pg_recvlogical"), "--start", "-d", stage.dsn, "-f", "/dev/null", *options]
    receivers = []
    try:
        for number in range(count):
            # One by one, so that those begun are ended when another cannot be.
            receivers.append(await asyncio.create_subprocess_exec(*command, "-S", _slot(number)))  # noqa: PERF401
        await until(lambda: _streaming(stage.admin, count), "streams", _WITHIN_S)
        await _until_caught_up(stage.admin)
        yield
    finally:
        for receiver in receivers:
            receiver.terminate()
            await receiver.wait()
        await until(lambda: _streaming(stage.admin, 0), "the end of the streams", _WITHIN_S)


def _slot(number: int) -> str:
    return f"bench_{number}"


async def _streaming(admin: asyncpg.Connection, count: int) -> bool:
    return bool(await admin.fetchval("SELECT count(*) = $1 FROM pg_stat_replication", count))


async def _until_caught_up(admin: asyncpg.Connection) -> None:
    position = await admin.fetchval("SELECT pg_current_wal_flush_lsn()::text")
    await until(lambda: admin.fetchval(_CAUGHT_UP, position), "the senders", _WITHIN_S)


async def _by_senders(admin: asyncpg.Connection) -> int:
    return sum(busy_ns(row["pid"]) for row in await admin.fetch("SELECT pid FROM pg_stat_replication"))


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    return uvloop.run(_run(stand.ground, plan))


def tables(found: dict[str, Any]) -> list[Table]:
    head = ["slots of others' moves", "read", "their senders, µs for each movement", "for each slot"]
    rows = [[*head, "PostgreSQL otherwise", "share"]]
    for count, ways in found["by_slots"].items():
        for way, costs in ways.items():
            senders, others = (sum(each[who] for each in costs) / len(costs) for who in ("senders", "others"))
            each_slot = f"{senders / int(count):.1f}" if int(count) else ""
            rows.append([count, way, f"{senders:.1f}", each_slot, f"{others:,.0f}", f"{senders / others:.1%}"])
    return [Table(rows)]


BENCHMARK = Benchmark(
    "slots", run, tables, plan=Plan(), quick=Plan(slots=(0, 4), rounds=1, movements=500), durable=False
)
