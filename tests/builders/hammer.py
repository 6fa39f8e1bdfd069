"""Many requests at once over many tenants on all tiers, some of them failing, some cancelled: who saw what?"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from uuid import UUID

import httpx
import msgspec
import redis.asyncio
from sqlalchemy import func, select, text

from strata.inventory.products.models import Product
from strata.platform.errors import StrataError
from strata.runtime import Runtime
from strata.tenancy.cell.door import Isolation
from strata.tenancy.context import TenantContext
from strata.tenancy.context_loader import TenantSnapshot
from strata.tenancy.errors import ConcurrentUpdateError
from strata.tenancy.model import Tier
from tests.builders.platform import Tenantry
from tests.builders.site import Site

MIX = {Tier.SHARED: 26, Tier.SCHEMA: 20, Tier.DEDICATED: 4}


class InjectedError(Exception):
    pass


class Tally(msgspec.Struct):
    """`foreign`: what a request saw that was not its tenant's."""

    outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    foreign: list[tuple[str, str]] = msgspec.field(default_factory=list)
    surprises: list[BaseException] = msgspec.field(default_factory=list)


async def many_tenants(tenant_on: Tenantry) -> list[TenantContext]:
    return [await tenant_on(tier) for tier, number in MIX.items() for _ in range(number)]


async def one_request(runtime: Runtime, slug: str, chance: random.Random, tally: Tally) -> None:
    """As a handler would: resolve the slug, write a row, read everything, and perhaps come to grief."""
    context = await runtime.contexts.get_by_slug(slug)
    if context.slug != slug:
        tally.foreign.append((slug, context.slug))
    isolation = chance.choice([*Isolation, Isolation.READ_COMMITTED, Isolation.READ_COMMITTED])
    trouble = chance.random()
    async with runtime.tenants.transaction(context, isolation=isolation) as session:
        session.add(Product(sku=f"s{chance.getrandbits(64):x}", name=str(context.id)))
        await session.flush()
        if trouble < 0.1:
            raise InjectedError
        if trouble < 0.2:
            await session.execute(text("SELECT 1 / 0"))
        if trouble < 0.4:
            async with session.begin_nested():
                session.add(Product(sku=f"n{chance.getrandbits(64):x}", name=str(context.id)))
        await asyncio.sleep(chance.random() * 0.01)
        seen = await session.execute(text("SELECT DISTINCT tenant_id, name FROM product"))
        tally.foreign += [(slug, str(row)) for row in seen if {str(row.tenant_id), row.name} != {str(context.id)}]
        if await session.scalar(select(func.count()).select_from(Product).where(Product.tenant_id != context.id)):
            tally.foreign.append((slug, "through the ORM"))


async def hammer(
    runtime: Runtime, tenants: list[TenantContext], *, requests: int, cancelled: float, seed: int
) -> Tally:
    """`requests` at once; a fraction of them is `cancelled` at some moment."""
    tally, chance = Tally(), random.Random(seed)
    tasks = []
    for number in range(requests):
        tenant = tenants[number % len(tenants)]
        work = one_request(runtime, tenant.slug, random.Random(chance.getrandbits(32)), tally)
        tasks.append(asyncio.create_task(work))

    async def cancel_some() -> None:
        for task in chance.sample(tasks, int(len(tasks) * cancelled)):
            await asyncio.sleep(chance.random() * 0.02)
            task.cancel()

    _, *results = await asyncio.gather(cancel_some(), *tasks, return_exceptions=True)
    for result in results:
        _count(result, tally)
    return tally


def _count(result: BaseException | None, tally: Tally) -> None:
    match result:
        case None:
            tally.outcomes["done"] += 1
        case asyncio.CancelledError():
            tally.outcomes["cancelled"] += 1
        case InjectedError():
            tally.outcomes["failed"] += 1
        case ConcurrentUpdateError():
            tally.outcomes["lost a race"] += 1
        case _ if getattr(getattr(result, "orig", None), "sqlstate", None) == "22012":
            tally.outcomes["failed"] += 1
        case StrataError() | _:
            tally.surprises.append(result)


async def misplaced_cache_entries(runtime: Runtime, tenants: list[TenantContext]) -> list[str]:
    """Entries of either cache that stand under another tenant's key."""
    wrong = []
    slugs = {tenant.id: tenant.slug for tenant in tenants}
    for tenant in tenants:
        held = runtime.contexts.peek(tenant.id)
        if held is not None and (held.id != tenant.id or held.context is None or held.context.slug != tenant.slug):
            wrong.append(f"in process: {tenant.slug}")
        if (await runtime.contexts.get_by_slug(tenant.slug)).id != tenant.id:
            wrong.append(f"by name: {tenant.slug}")
    assert runtime.settings.redis_url is not None
    async with redis.asyncio.Redis.from_url(runtime.settings.redis_url.get_secret_value()) as client:
        for tenant_id, slug in slugs.items():
            body = await client.hget(f"strata:{{{tenant_id}}}:context", "body")
            if isinstance(body, bytes):
                snapshot = msgspec.msgpack.decode(body, type=TenantSnapshot)
                if snapshot.id != tenant_id or snapshot.context is None or snapshot.context.slug != slug:
                    wrong.append(f"in Redis: {slug}")
            name = await client.get(f"strata:name:slug:{slug}")
            if isinstance(name, bytes) and UUID(bytes=name) != tenant_id:
                wrong.append(f"name in Redis: {slug}")
    return wrong


async def hammer_over_http(site: Site, tenants: list[TenantContext], *, requests: int, seed: int) -> Tally:
    """The same from outside: right requests, wrong ones, another tenant's token, and clients that hang up."""
    tally, chance = Tally(), random.Random(seed)
    tasks = [
        asyncio.create_task(
            one_call(
                site,
                tenants[number % len(tenants)],
                chance.choice(tenants),
                random.Random(chance.getrandbits(32)),
                tally,
            )
        )
        for number in range(requests)
    ]
    for task in chance.sample(tasks, requests // 5):
        await asyncio.sleep(chance.random() * 0.01)
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if result is not None:
            _count(result, tally)
    return tally


async def one_call(
    site: Site, tenant: TenantContext, other: TenantContext, chance: random.Random, tally: Tally
) -> None:
    async with site.client(tenant) as client:
        client.timeout = 30
        trouble = chance.random()
        if trouble < 0.15 and other.id != tenant.id:
            # The neighbour's token at this host, or this tenant's at the neighbour's.
            answer = await client.get("/api/v1/products", headers={"Host": f"{other.slug}.localhost"})
            _expect(tally, answer, 403)
            return
        if trouble < 0.25:
            _expect(tally, await client.post("/api/v1/products", json={"sku": "", "name": 7}), 422)
            return
        body = {"sku": f"h{chance.getrandbits(64):x}", "name": str(tenant.id)}
        _expect(tally, await client.post("/api/v1/products", json=body), 201)
        listed = await client.get("/api/v1/products", params={"limit": 100})
        _expect(tally, listed, 200)
        tally.foreign += [(tenant.slug, str(item)) for item in listed.json()["items"] if item["name"] != str(tenant.id)]


def _expect(tally: Tally, answer: httpx.Response, status: int) -> None:
    tally.outcomes[str(answer.status_code)] += 1
    if answer.status_code != status:
        tally.surprises.append(AssertionError(f"{answer.status_code} instead of {status}: {answer.text[:300]}"))
