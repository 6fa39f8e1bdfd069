"""The whole way of a request beside the same without limits and usage, and how often it asks Redis."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import msgspec

from strata.tenancy.model import Tier
from tests.bench import slices, strata_side
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.ground import Ground, Server
from tests.bench.load import LoadGenerator
from tests.bench.parties import MOVE, READ, Party
from tests.bench.slices import Plan, Subject, measure, results
from tests.bench.tables import Table
from tests.bench.wire import CountingProxy

WHOLE, SPINE = "whole pipeline", "without limits and usage"
_COUNTED = 2000


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    tenant = next(each for each in stand.sides.tenants if each.tier is Tier.SHARED)
    spine = strata_side.serve(stand.ground, name="spine", arguments=("--spine",))
    servers = {WHOLE: strata_side.serve(stand.ground, name="whole"), SPINE: spine}
    parties = {name: Party(name, server, tenant.host, tenant.headers) for name, server in servers.items()}
    for party in parties.values():
        party.define(stand.load)
    work: dict[str, Any] = {}
    for each in (READ, MOVE):
        subjects = [Subject(name, party.target(each), party.server.pid) for name, party in parties.items()]
        work[each] = {
            str(connections): results(
                measure(stand.load, subjects, plan, connections=connections, postgres_pid=stand.ground.postgres_pid),
                (SPINE,),
            )
            for connections in plan.connections
        }
    for server in servers.values():
        stand.ground.stop(server)
    return {"work": work, "redis": asyncio.run(_asked_of_redis(stand.ground, stand.load, parties[WHOLE]))}


async def _asked_of_redis(ground: Ground, load: LoadGenerator, party: Party) -> dict[str, Any]:
    """Round trips by the request, those of the link's own heartbeat and of the processes' roll call among them."""
    at = urlsplit(ground.redis.url)
    async with CountingProxy("127.0.0.1", at.port or 0) as wire:
        address = ground.redis.url.replace(f":{at.port}/", f":{wire.port}/")
        server: Server = await asyncio.to_thread(strata_side.serve, ground, name="counted", redis_url=address)
        counted = msgspec.structs.replace(party, name="counted", server=server)
        counted.define(load)
        await asyncio.to_thread(load.count, counted.target(READ), 20)
        before = wire.round_trips
        await asyncio.to_thread(load.count, counted.target(READ), _COUNTED)
        trips = wire.round_trips - before
        await asyncio.to_thread(ground.stop, server)
    return {"requests": _COUNTED, "round_trips": trips}


def tables(found: dict[str, Any]) -> list[Table]:
    redis = found["redis"]
    by_request = redis["round_trips"] / redis["requests"]
    return [
        *slices.tables(found),
        Table(
            [
                ["", "requests", "round trips", "by the request"],
                ["Redis", str(redis["requests"]), str(redis["round_trips"]), f"{by_request:.3f}"],
            ]
        ),
    ]


BENCHMARK = Benchmark(
    "pipeline",
    run,
    tables,
    plan=Plan(rounds=24, seconds=0.5, connections=(1, 8)),
    quick=Plan(rounds=6, seconds=0.25, connections=(1,)),
    shared_stand=True,
)
