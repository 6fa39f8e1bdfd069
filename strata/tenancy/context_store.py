"""The second level of the context cache: Redis, shared by all processes, believed only as far as it can be checked.

    strata:{<tenant id>}:context     hash: generation, version, body (msgpack of TenantSnapshot)
    strata:name:slug:<slug>          tenant id; strata:name:domain:<host> likewise

`generation` names the running Redis, the shape of the body and the plan catalogue that it was computed with. After a
restart or a fail-over Redis may hold what it held earlier, and another release may write other fields or know other
plans: all of these look like a miss. An entry lives for what is left of the
time-to-live counted from the catalog read, by Redis's clock, so that no two machines need to agree on the time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from uuid import UUID

import msgspec
import redis.asyncio
import structlog

from strata.platform.redis_link import RedisDownError, RedisLink
from strata.tenancy.context_loader import NameKind, TenantSnapshot
from strata.tenancy.plans import catalogue

log = structlog.get_logger(__name__)

_SHAPE = hashlib.sha256(msgspec.json.encode(msgspec.json.schema(TenantSnapshot))).hexdigest()[:12]
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(TenantSnapshot)

# Compares and writes in one step: between a read and a write of ours a newer version could slip in.
_WRITE = """
local held = redis.call('HMGET', KEYS[1], 'generation', 'version')
if held[1] == ARGV[1] and held[2] and tonumber(held[2]) > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'version', ARGV[2], 'body', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""

_READ = """
local held = redis.call('HMGET', KEYS[1], 'generation', 'body')
if not held[2] then return false end
return {held[1] or '', held[2], redis.call('PTTL', KEYS[1])}
"""


class ContextStore:
    def __init__(self, link: RedisLink, *, ttl_s: float) -> None:
        self._link = link
        self._ttl_ms = int(ttl_s * 1000)

    async def read(self, tenant_id: UUID) -> tuple[TenantSnapshot, float] | None:
        """The snapshot and its age in seconds; None: not there, not trusted, or Redis is down."""
        key = _context_key(tenant_id)

        async def command(client: redis.asyncio.Redis) -> list[bytes | int] | None:
            found: list[bytes | int] | None = await client.eval(_READ, 1, key)
            return found

        try:
            found = await self._link.run(command)
        except RedisDownError:
            return None
        if found is None:
            return None
        generation, body, left_ms = found
        # Without an expiry it is not ours, or somebody changed it by hand.
        if generation != self._generation() or not isinstance(left_ms, int) or left_ms <= 0:
            return None
        try:
            snapshot = _DECODER.decode(body if isinstance(body, bytes) else b"")
        except msgspec.DecodeError as error:
            await self._discard(key, str(error))
            return None
        if snapshot.id != tenant_id or (snapshot.context is not None and snapshot.context.id != tenant_id):
            await self._discard(key, "another tenant's entry")
            return None
        return snapshot, max(0.0, (self._ttl_ms - left_ms) / 1000)

    async def write(self, snapshot: TenantSnapshot, *, age_s: float = 0.0) -> bool:
        """Keep it, unless a newer version is there. A snapshot without a context stays as a tombstone against late writers.

        False: Redis did not take it, and may hold an older one.
        """
        key = _context_key(snapshot.id)
        left_ms = max(1, self._ttl_ms - int(age_s * 1000))
        body = _ENCODER.encode(snapshot)
        names = [_name_key(kind, name) for kind, name in snapshot.names()]

        async def command(client: redis.asyncio.Redis) -> None:
            async with client.pipeline(transaction=False) as pipe:
                # Queued, not awaited: execute() sends them together.
                _ = pipe.eval(_WRITE, 1, key, self._generation(), str(snapshot.version), body, str(left_ms))
                for name in names:
                    _ = pipe.set(name, snapshot.id.bytes, px=left_ms)
                await pipe.execute()

        return await self._quietly(command)

    async def tenant_named(self, kind: NameKind, name: str) -> UUID | None:
        """Only a hint: whoever uses it checks that the tenant still answers to the name."""
        key = _name_key(kind, name)

        async def command(client: redis.asyncio.Redis) -> bytes | None:
            return await client.get(key)  # type: ignore[return-value]

        try:
            found = await self._link.run(command)
        except RedisDownError:
            return None
        return UUID(bytes=found) if found is not None and len(found) == 16 else None  # noqa: PLR2004 - bytes of a UUID

    async def forget(self, tenant_id: UUID) -> bool:
        key = _context_key(tenant_id)

        async def command(client: redis.asyncio.Redis) -> None:
            await client.delete(key)

        return await self._quietly(command)

    async def _discard(self, key: str, why: str) -> None:
        # Left in place, an unreadable entry with a high version would keep good ones out.
        log.warning("context.discarded", key=key, why=why)

        async def command(client: redis.asyncio.Redis) -> None:
            await client.delete(key)

        await self._quietly(command)

    async def _quietly(self, command: Callable[[redis.asyncio.Redis], Awaitable[None]]) -> bool:
        try:
            await self._link.run(command)
        except RedisDownError:
            return False
        return True

    def _generation(self) -> bytes:
        return f"{self._link.run_id}:{_SHAPE}:{catalogue().digest}".encode()


def _context_key(tenant_id: UUID) -> str:
    # Braces: on a Redis Cluster all keys of a tenant share a slot.
    return f"strata:{{{tenant_id}}}:context"


def _name_key(kind: NameKind, name: str) -> str:
    return f"strata:name:{kind}:{name}"
