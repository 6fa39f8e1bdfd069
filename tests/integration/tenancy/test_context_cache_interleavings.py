"""Whatever the order of reads, changes, take-overs of names and forgetting: nobody gets another's context, or an old one."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import UnknownTenantError
from strata.tenancy.model import Tier
from tests.builders.contexts import CacheProcess, cache_process, eventually, rename
from tests.builders.platform import Tenantry
from tests.servers import RedisServer

TENANTS, PROCESSES = 3, 2
WHO = st.integers(0, TENANTS - 1)
WHERE = st.integers(0, PROCESSES - 1)
STEPS = st.one_of(
    st.tuples(st.just("by_id"), WHERE, WHO),
    st.tuples(st.just("by_slug"), WHERE, WHO),
    st.tuples(st.just("fresh"), WHERE, WHO),
    st.tuples(st.just("change"), WHERE, WHO),
    st.tuples(st.just("swap"), WHERE, WHO),
    st.tuples(st.just("forget"), WHERE, WHO),
)


class Story:
    """Plays rounds of steps, those of a round at once, and knows what each answer may be."""

    def __init__(self, runtime: Runtime, processes: list[CacheProcess], tenants: list[TenantContext]) -> None:
        self.runtime = runtime
        self.processes = processes
        self.ids = [tenant.id for tenant in tenants]
        self.slugs = {tenant.slug: tenant.id for tenant in tenants}
        self.announced: dict[UUID, int] = {tenant.id: tenant.version for tenant in tenants}

    async def play(self, steps: list[tuple[str, int, int]]) -> None:
        # Names move between rounds only: within one, which answer is right would be a matter of microseconds.
        swaps = [step for step in steps if step[0] == "swap"]
        await asyncio.gather(*(self.step(*step) for step in steps if step[0] != "swap"))
        for _, where, who in swaps:
            await self.swap(self.processes[where], self.ids[who], self.ids[(who + 1) % TENANTS])
        for process in self.processes:
            await eventually(lambda process=process: self.has_heard(process))  # type: ignore[misc]

    def has_heard(self, process: CacheProcess) -> bool:
        return all(process.cache._floors.get(id_, 0) >= version for id_, version in self.announced.items())

    async def step(self, what: str, where: int, who: int) -> None:
        cache, tenant_id = self.processes[where].cache, self.ids[who]
        known = self.announced[tenant_id]
        match what:
            case "change":
                version = await rename(self.runtime.catalog_engine, tenant_id, secrets.token_hex(4))
                await cache.announce(tenant_id)
                self.announced[tenant_id] = max(version, self.announced[tenant_id])
                assert (await cache.get_by_id(tenant_id)).version >= version
            case "by_id":
                got = await cache.get_by_id(tenant_id)
                assert (got.id, got.version >= known) == (tenant_id, True)
            case "fresh":
                got = await cache.fresh(tenant_id)
                assert (got.id, got.version >= known) == (tenant_id, True)
            case "by_slug":
                slug = next(slug for slug, owner in self.slugs.items() if owner == tenant_id)
                got = await cache.get_by_slug(slug)
                assert (got.id, got.slug, got.version >= known) == (tenant_id, slug, True)
            case _:
                cache.clear()

    async def swap(self, process: CacheProcess, one: UUID, other: UUID) -> None:
        by_owner = {owner: slug for slug, owner in self.slugs.items()}
        update = text("UPDATE tenant SET slug = :slug WHERE id = :id RETURNING version")
        async with self.runtime.catalog_engine.begin() as connection:
            await connection.execute(update, {"slug": f"x{secrets.token_hex(6)}", "id": one})
            second = (await connection.execute(update, {"slug": by_owner[one], "id": other})).scalar_one()
            first = (await connection.execute(update, {"slug": by_owner[other], "id": one})).scalar_one()
        self.slugs[by_owner[one]], self.slugs[by_owner[other]] = other, one
        for tenant_id, version in ((one, first), (other, second)):
            await process.cache.announce(tenant_id)
            self.announced[tenant_id] = version


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(rounds=st.lists(st.lists(STEPS, min_size=1, max_size=8), min_size=1, max_size=6))
async def test_any_interleaving_gives_each_its_own_and_nobody_the_past(
    runtime: Runtime, redis_server: RedisServer, tenant_on: Tenantry, rounds: list[list[tuple[str, int, int]]]
) -> None:
    tenants = [await tenant_on(Tier.SHARED) for _ in range(TENANTS)]
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(cache_process(runtime.catalog_engine, redis_server.url))
            for _ in range(PROCESSES)
        ]
        story = Story(runtime, processes, tenants)
        for process in processes:
            for tenant in tenants:
                await process.cache.announce(tenant.id)
        for steps in rounds:
            await story.play(steps)
        for process in processes:
            for slug, owner in story.slugs.items():
                assert (await process.cache.get_by_slug(slug)).id == owner


async def test_nobody_is_served_while_names_are_between_owners(
    runtime: Runtime, redis_server: RedisServer, tenant_on: Tenantry
) -> None:
    """Readers never stop while two tenants exchange a name again and again; each answer is one that was true."""
    first, second = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED)
    going = True
    async with (
        cache_process(runtime.catalog_engine, redis_server.url) as writer,
        cache_process(runtime.catalog_engine, redis_server.url) as reader,
    ):
        story = Story(runtime, [writer, reader], [first, second])

        async def read() -> None:
            while going:
                for slug in (first.slug, second.slug):
                    try:
                        got = await reader.cache.get_by_slug(slug)
                    except UnknownTenantError:
                        continue
                    assert got.slug == slug
                    assert got.id in {first.id, second.id}
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(read())
            for _ in range(10):
                await story.swap(writer, first.id, second.id)
            going = False
        await eventually(lambda: story.has_heard(reader))
        for slug, owner in story.slugs.items():
            assert (await reader.cache.get_by_slug(slug)).id == owner
