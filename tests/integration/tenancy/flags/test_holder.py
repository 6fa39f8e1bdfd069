"""Flags as processes hold them: a change reaches all, whatever is away; asking does no I/O."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import NullPool, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from strata.platform.embedded import EmbeddedRedis
from strata.platform.redis_link import RedisLink
from strata.platform.settings import FlagSettings
from strata.runtime import Runtime
from strata.tenancy.flags import holder
from strata.tenancy.flags.holder import Flags
from strata.tenancy.flags.model import FlagSet
from strata.tenancy.flags.reading import read_flags
from strata.tenancy.flags.stale import Staleness, stale_flags
from strata.tenancy.model import Tier
from tests.builders import flags as build
from tests.builders.contexts import eventually
from tests.builders.platform import ACTOR, Tenantry
from tests.servers import RedisServer

PATIENT = FlagSettings(ttl_without_redis_s=300)
"""Nothing is asked for of itself: what arrives was announced."""
IMPATIENT = FlagSettings(ttl_without_redis_s=0.05)


@pytest.fixture
def key() -> str:
    return f"h{secrets.token_hex(5)}"


@asynccontextmanager
async def process(engine: AsyncEngine, redis_url: str, settings: FlagSettings = PATIENT) -> AsyncIterator[Flags]:
    link = RedisLink(redis_url, timeout_s=2.0)
    flags = Flags(engine, link, settings)
    await link.start()
    try:
        await flags.start()
        yield flags
    finally:
        await flags.close()
        await link.close()


async def test_a_change_in_one_process_reaches_the_others_by_announcement(
    runtime: Runtime, redis_server: RedisServer, key: str
) -> None:
    async with process(runtime.catalog_engine, redis_server.url) as other:
        assert key not in other
        started = time.monotonic()
        await runtime.flag_desk.put(build.flag(key, rollout=10_000), ACTOR)
        assert key in runtime.flags, "who changes it sees it at once"
        await eventually(lambda: key in other)
        # The figure is for docs/benchmarks; here only that it is no matter of a time-to-live.
        assert time.monotonic() - started < 10
        assert other.is_on(key, build.tenant())
        await runtime.flag_desk.kill(key, ACTOR, killed=True)
        await eventually(lambda: not other.is_on(key, build.tenant()))


async def test_without_redis_all_know_within_the_time_to_live(
    runtime: Runtime, stoppable_redis: EmbeddedRedis, key: str
) -> None:
    async with process(runtime.catalog_engine, stoppable_redis.url, IMPATIENT) as other:
        await eventually(lambda: other._link.up)
        stoppable_redis.stop()
        await eventually(lambda: not other._link.up)
        await runtime.flag_desk.put(build.flag(key, rollout=10_000), ACTOR)
        await eventually(lambda: key in other)


async def test_when_redis_is_back_what_was_missed_is_made_up_for(
    runtime: Runtime, stoppable_redis: EmbeddedRedis, key: str
) -> None:
    async with process(runtime.catalog_engine, stoppable_redis.url) as other:
        await eventually(lambda: other._link.up)
        stoppable_redis.stop()
        await eventually(lambda: not other._link.up)
        await runtime.flag_desk.put(build.flag(key, rollout=10_000), ACTOR)
        assert key not in other
        stoppable_redis.start()
        await eventually(lambda: key in other, within_s=30)


async def test_what_could_not_be_announced_is_announced_later(
    runtime: Runtime, stoppable_redis: EmbeddedRedis, key: str
) -> None:
    async with (
        process(runtime.catalog_engine, stoppable_redis.url, IMPATIENT) as one,
        process(runtime.catalog_engine, stoppable_redis.url) as other,
    ):
        await eventually(lambda: one._link.up and other._link.up)
        before = other.version
        async with runtime.catalog_engine.begin() as connection:
            await connection.execute(text("UPDATE flag_set SET version = version + 1"))
        await one._refresh()
        one._untold = True
        await eventually(lambda: other.version > before)
        assert not one._untold


async def test_without_the_catalog_flags_stay_as_they_were(
    runtime: Runtime, redis_server: RedisServer, key: str
) -> None:
    engine = create_async_engine(runtime.catalog_engine.url, poolclass=NullPool)
    await runtime.flag_desk.put(build.flag(key, rollout=10_000), ACTOR)
    async with process(engine, redis_server.url, IMPATIENT) as other:
        other._catalog = create_async_engine(engine.url.set(host="127.0.0.1", port=1), poolclass=NullPool)
        other._renew()
        await asyncio.sleep(0)
        await other._refresh()
        assert other.is_on(key, build.tenant())
        other._catalog = engine
        await runtime.flag_desk.kill(key, ACTOR, killed=True)
        await eventually(lambda: not other.is_on(key, build.tenant()))


async def test_what_is_announced_while_the_catalog_is_read_is_not_forgotten(
    runtime: Runtime, redis_server: RedisServer, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await runtime.flag_desk.put(build.flag(key, rollout=10_000), ACTOR)
    begun, heard = asyncio.Event(), asyncio.Event()

    async def slowly(connection: AsyncConnection) -> FlagSet:
        found = await read_flags(connection)
        begun.set()
        await heard.wait()
        return found

    async with process(runtime.catalog_engine, redis_server.url) as other:
        monkeypatch.setattr(holder, "read_flags", slowly)
        other._renew()
        await begun.wait()
        monkeypatch.undo()
        await runtime.flag_desk.kill(key, ACTOR, killed=True)
        await eventually(lambda: other._wanted > other.version)
        heard.set()
        await eventually(lambda: not other.is_on(key, build.tenant()))


async def test_a_process_does_not_start_without_the_catalog(runtime: Runtime, redis_server: RedisServer) -> None:
    """Off would be a lie about flags that are on; a start that fails is tried again."""
    nowhere = create_async_engine(runtime.catalog_engine.url.set(host="127.0.0.1", port=1), poolclass=NullPool)
    with pytest.raises(ConnectionRefusedError):
        async with process(nowhere, redis_server.url):
            pass


async def test_an_unreadable_announcement_makes_a_process_look(
    runtime: Runtime, redis_server: RedisServer, key: str
) -> None:
    async with process(runtime.catalog_engine, redis_server.url) as other:
        async with runtime.catalog_engine.begin() as connection:
            await connection.execute(
                text("INSERT INTO flag (key, document, changed_by) VALUES (:key, cast(:document AS jsonb), 'sql')"),
                {"key": key, "document": f'{{"key": "{key}", "seed": "s", "variant_seed": "v", "default": "on"}}'},
            )
        other._hear(b"\xc1")
        await eventually(lambda: other.is_on(key, build.tenant()))


async def test_a_document_of_a_newer_release_is_off_and_harms_nobody(
    runtime: Runtime, redis_server: RedisServer, key: str
) -> None:
    await runtime.flag_desk.put(build.flag(key, rollout=10_000), ACTOR)
    async with runtime.catalog_engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO flag (key, document, changed_by) VALUES (:key, cast(:document AS jsonb), 'sql')"),
            {"key": f"{key}-new", "document": f'{{"key": "{key}-new", "hologram": true}}'},
        )
    try:
        async with process(runtime.catalog_engine, redis_server.url) as flags:
            assert flags.is_on(key, build.tenant())
            assert f"{key}-new" not in flags
    finally:
        async with runtime.catalog_engine.begin() as connection:
            await connection.execute(text("DELETE FROM flag WHERE key = :key"), {"key": f"{key}-new"})


async def test_asking_does_no_io(runtime: Runtime, tenant_on: Tenantry, key: str) -> None:
    tenant = await tenant_on(Tier.SHARED)
    await runtime.flag_desk.put(build.flag(key, rollout=5000), ACTOR)
    statements: list[str] = []

    def heard(*given: object) -> None:
        statements.append(str(given[2]))

    engine = runtime.catalog_engine.sync_engine
    event.listen(engine, "before_cursor_execute", heard)
    try:
        for _ in range(1000):
            runtime.flags.evaluate(key, tenant)
            runtime.flags.evaluate("no-such", tenant)
    finally:
        event.remove(engine, "before_cursor_execute", heard)
    assert statements == []


async def test_what_is_stale_is_told(runtime: Runtime, redis_server: RedisServer, key: str) -> None:
    document = {"full": 10_000, "none": 0, "part": 5000, "dead": 5000}
    for name, share in document.items():
        await runtime.flag_desk.put(build.flag(f"{key}-{name}", rollout=share, killed=name == "dead"), ACTOR)
    await runtime.flag_desk.put(build.flag(f"{key}-young", rollout=10_000), ACTOR)
    async with process(runtime.catalog_engine, redis_server.url) as flags:
        for number in range(50):
            for name in ("full", "part"):
                flags.evaluate(f"{key}-{name}", build.tenant(number))
        await runtime.flag_desk.put(build.flag(f"{key}-{'young'}", rollout=9_000), ACTOR)  # counts outlive a new set
        await eventually(lambda: flags.version == runtime.flags.version)
    async with runtime.catalog_engine.begin() as connection:
        await connection.execute(
            text(
                "UPDATE flag SET changed_at = now() - interval '40 days' WHERE key LIKE :mine AND key NOT LIKE '%young'"
            ),
            {"mine": f"{key}-%"},
        )
    found = {each.key: each for each in await stale_flags(runtime.catalog_engine, 30) if each.key.startswith(key)}
    assert {name: found[f"{key}-{name}"].why for name in ("full", "none", "dead")} == {
        "full": [Staleness.AT_ALL, Staleness.ONE_ANSWER],
        "none": [Staleness.AT_ZERO, Staleness.UNASKED],
        "dead": [Staleness.KILLED, Staleness.UNASKED],
    }
    assert set(found) == {f"{key}-{name}" for name in ("full", "none", "dead")}
    assert found[f"{key}-full"].evaluations == 50
