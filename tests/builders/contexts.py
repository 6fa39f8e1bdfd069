"""Context caches as several processes would have them: on one catalog, each with its own link to Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from strata.platform.redis_link import RedisLink
from strata.platform.settings import CacheSettings
from strata.tenancy.context_cache import ContextCache
from strata.tenancy.context_loader import ContextLoader, NameKind, TenantSnapshot


class WatchedLoader(ContextLoader):
    """The real loader, which counts its queries and can be held between reading and answering."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.queries = 0
        self.has_read = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def break_off(self) -> None:
        """From now on the catalog's address is one where nobody listens."""
        url = self._engine.url.set(host="127.0.0.1", port=1)
        self._engine = create_async_engine(url, poolclass=NullPool)

    def hold(self) -> None:
        self.has_read.clear()
        self.may_answer.clear()

    async def by_id(self, tenant_id: UUID) -> TenantSnapshot | None:
        return await self._watched(super().by_id(tenant_id))

    async def by_name(self, kind: NameKind, name: str) -> TenantSnapshot | None:
        return await self._watched(super().by_name(kind, name))

    async def _watched(self, reading: Awaitable[TenantSnapshot | None]) -> TenantSnapshot | None:
        self.queries += 1
        snapshot = await reading
        self.has_read.set()
        await self.may_answer.wait()
        return snapshot


class CacheProcess:
    """What one process has of contexts."""

    def __init__(self, engine: AsyncEngine, redis_url: str, settings: CacheSettings) -> None:
        self.loader = WatchedLoader(engine)
        self.link = RedisLink(redis_url, timeout_s=settings.redis_timeout_s)
        self.cache = ContextCache(self.loader, self.link, settings)


# Generous: a busy test machine must not look like a Redis that is away.
PATIENT = CacheSettings(redis_timeout_s=2.0)


@asynccontextmanager
async def cache_process(
    engine: AsyncEngine, redis_url: str, settings: CacheSettings = PATIENT
) -> AsyncIterator[CacheProcess]:
    process = CacheProcess(engine, redis_url, settings)
    await process.link.start()
    try:
        yield process
    finally:
        await process.cache.close()
        await process.link.close()


async def rename(engine: AsyncEngine, tenant_id: UUID, name: str) -> int:
    """Change a tenant as another part of the platform would, without telling anybody; returns the new version."""
    statement = text("UPDATE tenant SET name = :name WHERE id = :id RETURNING version")
    async with engine.begin() as connection:
        return int((await connection.execute(statement, {"name": name, "id": tenant_id})).scalar_one())


async def add_domain(engine: AsyncEngine, tenant_id: UUID, hostname: str, certificate: str = "active") -> None:
    statement = text(
        "INSERT INTO domain (id, tenant_id, hostname, verified_at, certificate_status)"
        " VALUES (gen_random_uuid(), :tenant, :host, now(), :certificate)"
    )
    async with engine.begin() as connection:
        await connection.execute(statement, {"tenant": tenant_id, "host": hostname, "certificate": certificate})


async def eventually(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another task's connection
            await asyncio.sleep(0.005)
