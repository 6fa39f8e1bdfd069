"""python -m tests.bench.resolution [--quick]: what finding a tenant costs in a catalog of 100 and in one of 100,000.

Three ways, on both catalogs by turns: out of the process's own cache, out of Redis, out of the catalog. And what a cached context
weighs. Raw results go to docs/benchmarks/resolution.json.
"""

from __future__ import annotations

import argparse
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
import structlog
from sqlalchemy.ext.asyncio import create_async_engine

from strata.platform.database import addresses
from strata.platform.database.catalog_upgrade import upgrade_catalog
from strata.platform.redis_link import RedisLink
from strata.platform.settings import CacheSettings
from strata.runtime import MIGRATIONS
from strata.tenancy.context_cache import ContextCache
from strata.tenancy.context_loader import ContextLoader, NameKind
from tests.bench import machine, report
from tests.bench.ground import Ground, ground

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
async def _catalog(stage: Ground, count: int) -> AsyncIterator[Catalog]:
    name = f"catalog_{count}"
    await stage.make_database(name)
    url = addresses.parse(stage.dsn(name))
    await upgrade_catalog(url, MIGRATIONS / "catalog")
    admin = await asyncpg.connect(stage.dsn(name))
    await admin.execute(_FILL.format(count=count))
    await admin.close()
    await stage.settle(name)
    async with AsyncExitStack() as stack:
        engine = create_async_engine(addresses.for_asyncpg(url))
        stack.push_async_callback(engine.dispose)
        link = RedisLink(stage.redis.url, timeout_s=1.0)
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


async def measure(stage: Ground, *, rounds: int, times: int) -> dict[str, Any]:
    async with _catalog(stage, FEW) as few, _catalog(stage, MANY) as many:
        found: dict[str, Any] = {}
        for name, way in _WAYS.items():
            measured: dict[int, list[float]] = {FEW: [], MANY: []}
            for turn in range(rounds):
                for catalog in (few, many) if turn % 2 else (many, few):
                    measured[catalog.count].append(await _p50_us(catalog, way, times))
            p50 = {count: statistics.median(each) for count, each in measured.items()}
            found[name] = {
                "p50_us": p50,
                "ratio": statistics.median(m / f for f, m in zip(measured[FEW], measured[MANY], strict=True)),
            }
        return {"resolution": found, "context": await _weight(many)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.resolution", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    plan = {"rounds": 3 if quick else 10, "times": 300 if quick else 1000}
    with ground() as stage:
        found = asyncio.run(measure(stage, **plan))
    for name, each in found["resolution"].items():
        p50 = each["p50_us"]
        print(f"{name:20} {p50[FEW]:8.1f} µs of {FEW:,}, {p50[MANY]:8.1f} µs of {MANY:,}: {each['ratio']:.2f} times")
    print(f"a context: {found['context']}")
    print(f"Raw results: {report.save('resolution', machine.facts(None), plan, found, report.DIRECTORY)}")


if __name__ == "__main__":
    main()
