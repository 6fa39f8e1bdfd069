"""What finding a tenant costs in a catalog of 100 and in one of 100,000.

Three ways, on both catalogs by turns: out of the process's own cache, out of Redis, out of the catalog. And what a cached
context weighs.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import msgspec
from sqlalchemy.ext.asyncio import create_async_engine

from strata.migrations import MIGRATIONS
from strata.platform.database import addresses
from strata.platform.database.catalog_upgrade import upgrade_catalog
from strata.platform.redis_link import RedisLink
from strata.platform.settings import CacheSettings
from strata.tenancy.context_cache import ContextCache
from strata.tenancy.context_loader import ContextLoader, NameKind
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.ground import Ground
from tests.bench.tables import Table

FEW, MANY = 100, 100_000
_FILL = """
INSERT INTO server (id, name, region, admin_dsn_sealed, app_role, app_password_sealed)
    VALUES (gen_random_uuid(), 'server-1', 'local', '', 'strata_app', '');
INSERT INTO cell (id, name, server_id, database, kind, region, capacity, secret_sealed, state)
    SELECT gen_random_uuid(), 'cell-' || n, s.id, 'strata_cell_' || n, 'shared', 'local', 20000, '', 'open'
    FROM server s, generate_series(1, 10) n;
INSERT INTO tenant (id, slug, name, status, plan)
    SELECT gen_random_uuid(), 'tenant-' || n, 'Tenant number ' || n, 'active', 'business' FROM generate_series(1, {count}) n;
INSERT INTO placement (tenant_id, cell_id, tier, schema_name, epoch)
    SELECT t.id, c.id, 'schema', 't_' || replace(t.id::text, '-', ''), 1
    FROM tenant t JOIN cell c ON c.name = 'cell-' || (1 + abs(hashtext(t.slug)) % 10);
INSERT INTO tenant_document (tenant_id, facet, document)
    SELECT id, 'branding', jsonb_build_object('product_name', name, 'primary_color', '#1f5f8b') FROM tenant;
INSERT INTO domain (id, tenant_id, hostname, verified_at, certificate_status)
    SELECT gen_random_uuid(), id, 'stock.' || slug || '.example', now(), 'active' FROM tenant;
"""


class Plan(msgspec.Struct, frozen=True):
    rounds: int
    times: int
    """A way is gone in a round, on each catalog."""


Way = Callable[["Catalog", int], Awaitable[object]]


class Catalog:
    def __init__(self, count: int, loader: ContextLoader, cache: ContextCache) -> None:
        self.count = count
        self.loader = loader
        self.cache = cache


async def _from_catalog(catalog: Catalog, number: int) -> object:
    return await catalog.loader.by_name(NameKind.SLUG, f"tenant-{number}")


async def _by_domain(catalog: Catalog, number: int) -> object:
    return await catalog.loader.by_name(NameKind.DOMAIN, f"stock.tenant-{number}.example")


async def _from_redis(catalog: Catalog, number: int) -> object:
    catalog.cache.clear()
    return await catalog.cache.get_by_slug(f"tenant-{number}")


async def _from_process(catalog: Catalog, number: int) -> object:
    return await catalog.cache.get_by_slug(f"tenant-{number}")


_WAYS: dict[str, Way] = {
    "process": _from_process,
    "redis": _from_redis,
    "catalog, by slug": _from_catalog,
    "catalog, by domain": _by_domain,
}


@asynccontextmanager
async def _catalog(ground: Ground, count: int) -> AsyncIterator[Catalog]:
    name = f"catalog_{count}"
    await ground.make_database(name)
    url = addresses.parse(ground.dsn(name))
    await upgrade_catalog(url, MIGRATIONS / "catalog")
    admin = await asyncpg.connect(ground.dsn(name))
    await admin.execute(_FILL.format(count=count))
    await admin.close()
    await ground.settle(name)
    async with AsyncExitStack() as stack:
        engine = create_async_engine(addresses.for_asyncpg(url))
        stack.push_async_callback(engine.dispose)
        link = RedisLink(ground.redis.url, timeout_s=1.0)
        loader = ContextLoader(engine)
        cache = ContextCache(loader, link, CacheSettings(contexts_in_process=2 * FEW))
        await link.start()
        stack.push_async_callback(link.close)
        stack.push_async_callback(cache.close)
        yield Catalog(count, loader, cache)


async def _p50_us(catalog: Catalog, way: Way, times: int) -> float:
    """Over tenants spread over the whole catalog; each is asked for once before, so that Redis and process may know it."""
    chosen = [random.randint(1, catalog.count) for _ in range(FEW)]
    if way in {_from_redis, _from_process}:
        catalog.cache.clear()
        for number in chosen:
            await catalog.cache.get_by_slug(f"tenant-{number}")
    spent = []
    for turn in range(times):
        number = chosen[turn % len(chosen)] if way in {_from_redis, _from_process} else random.randint(1, catalog.count)
        began = time.perf_counter_ns()
        await way(catalog, number)
        spent.append((time.perf_counter_ns() - began) / 1000)
    return statistics.median(spent)


async def _weight(catalog: Catalog) -> dict[str, float]:
    """Bytes of a context: as Redis keeps it, and as the process holds it, decoded, with what finds it."""
    snapshot = await catalog.loader.by_name(NameKind.SLUG, "tenant-7")
    encoded = len(msgspec.msgpack.encode(snapshot))
    catalog.cache.clear()
    gc.collect()
    tracemalloc.start()
    for number in range(1, FEW + 1):
        await catalog.cache.get_by_slug(f"tenant-{number}")
    gc.collect()
    held = tracemalloc.take_snapshot()
    tracemalloc.stop()
    kept = [
        tracemalloc.Filter(inclusive=True, filename_pattern=f"*/strata/tenancy/{name}.py")
        for name in ("context_cache", "context_loader", "context_store")
    ]
    decoded = sum(each.size for each in held.filter_traces(kept).statistics("filename"))
    return {"encoded_bytes": encoded, "in_process_bytes": decoded / FEW}


async def _measure(ground: Ground, plan: Plan) -> dict[str, Any]:
    async with _catalog(ground, FEW) as few, _catalog(ground, MANY) as many:
        found: dict[str, Any] = {}
        for name, way in _WAYS.items():
            measured: dict[int, list[float]] = {FEW: [], MANY: []}
            for turn in range(plan.rounds):
                for catalog in (few, many) if turn % 2 else (many, few):
                    measured[catalog.count].append(await _p50_us(catalog, way, plan.times))
            p50 = {count: statistics.median(each) for count, each in measured.items()}
            found[name] = {
                "p50_us": p50,
                "ratio": statistics.median(m / f for f, m in zip(measured[FEW], measured[MANY], strict=True)),
            }
        return {"resolution": found, "context": await _weight(many)}


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    return asyncio.run(_measure(stand.ground, plan))


def tables(found: dict[str, Any]) -> list[Table]:
    rows = [["out of", f"{FEW:,} tenants, p50 µs", f"{MANY:,} tenants, p50 µs", "times"]]
    for name, each in found["resolution"].items():
        few, many = each["p50_us"].values()
        rows.append([name, f"{few:,.1f}", f"{many:,.1f}", f"{each['ratio']:.2f}"])
    weight = found["context"]
    held = [["a context, bytes", "in Redis", "in a process"]]
    held.append(["", f"{weight['encoded_bytes']:,.0f}", f"{weight['in_process_bytes']:,.0f}"])
    return [Table(rows), Table(held)]


BENCHMARK = Benchmark("resolution", run, tables, plan=Plan(rounds=10, times=1000), quick=Plan(rounds=3, times=300))
