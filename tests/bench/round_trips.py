"""Round trips on the wire per request, counted by proxies between the applications and their servers.

On server processes of their own, so that no proxy stands in the way of what is timed.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import msgspec

from strata.runtime import open_runtime
from tests.bench import plain_side, strata_side
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.ground import Ground
from tests.bench.load import LoadGenerator
from tests.bench.parties import MOVE, READ, Party, Sides
from tests.bench.tables import Table
from tests.bench.wire import CountingProxy


class Plan(msgspec.Struct, frozen=True):
    requests: int = 200


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    return asyncio.run(_run(stand.ground, stand.load, stand.sides, plan))


async def _run(ground: Ground, load: LoadGenerator, sides: Sides, plan: Plan) -> dict[str, Any]:
    redis_at = urlsplit(ground.redis.url)
    async with (
        CountingProxy("127.0.0.1", ground.postgres.port) as tenants,
        CountingProxy("127.0.0.1", ground.postgres.port) as catalog,
        CountingProxy("127.0.0.1", redis_at.port or 0) as redis,
        CountingProxy("127.0.0.1", ground.postgres.port) as database,
    ):
        plain_wires = {"database": database}
        address = f"127.0.0.1:{database.port}"
        plain = await asyncio.to_thread(plain_side.serve, ground, plain_side.BARE, address=address)
        found = {plain_side.BARE: await _counted(load, sides.plain(plain_side.BARE, plain), plain_wires, plan)}
        await asyncio.to_thread(ground.stop, plain)

        async with open_runtime(strata_side.settings(ground)) as runtime:
            await strata_side.register(ground, runtime, app_address=f"127.0.0.1:{tenants.port}")
            strata_wires = {"database": tenants, "catalog": catalog, "redis": redis}
            strata = await asyncio.to_thread(
                strata_side.serve,
                ground,
                database_url=ground.dsn(strata_side.CATALOG).replace(f":{ground.postgres.port}/", f":{catalog.port}/"),
                redis_url=ground.redis.url.replace(f":{redis_at.port}/", f":{redis.port}/"),
            )
            for party in sides.strata(strata):
                found[party.name] = await _counted(load, party, strata_wires, plan)
            await asyncio.to_thread(ground.stop, strata)
            await strata_side.register(ground, runtime)
        return found


async def _counted(load: LoadGenerator, party: Party, wires: dict[str, CountingProxy], plan: Plan) -> dict[str, Any]:
    """Per request, once everything is connected, prepared and cached; and the first request of all, for comparison."""
    # A name of its own: the generator knows the servers without proxies by the usual one.
    through_proxy = msgspec.structs.replace(party, name=f"{party.name}, counted")
    through_proxy.define(load)
    return {
        work: {
            "first": await _round_trips(load, through_proxy.target(work), 1, wires),
            "warming up": await _round_trips(load, through_proxy.target(work), 20, wires),
            "then": await _round_trips(load, through_proxy.target(work), plan.requests, wires),
        }
        for work in (READ, MOVE)
    }


async def _round_trips(
    load: LoadGenerator, target: str, count: int, wires: dict[str, CountingProxy]
) -> dict[str, float]:
    before = {name: wire.round_trips for name, wire in wires.items()}
    await asyncio.to_thread(load.count, target, count)
    return {name: (wire.round_trips - before[name]) / count for name, wire in wires.items()}


def tables(found: dict[str, Any]) -> list[Table]:
    works = list(next(iter(found.values())))
    rows = [["", *works]]
    for name, each in found.items():
        rows.append(
            [name, *(", ".join(f"{wire} {trips:g}" for wire, trips in each[work]["then"].items()) for work in works)]
        )
    return [Table(rows)]


BENCHMARK = Benchmark("round-trips", run, tables, plan=Plan(), quick=Plan(), shared_stand=True)
