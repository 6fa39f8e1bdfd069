"""TenantContexts in two levels: decoded ones in the process, encoded ones in Redis, the catalog behind both.

What holds it together:
- nothing is used longer than `context_ttl_s` after it was read from the catalog, both levels together;
- a change is announced with the tenant's new version. Who hears it drops what is older and remembers the version, so
  that a slow reader of the past cannot put it back;
- while nothing can be heard (Redis is away), entries in the process live `context_ttl_without_redis_s`, counted when they
  are asked for. When Redis is back the process forgets all it holds, for it may have missed something;
- an announcement that could not be sent is kept and sent later.

A stale placement does no harm in any case: the cell refuses an old epoch, and the session then asks `fresh()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from uuid import UUID

import msgspec
import structlog

from strata.platform.redis_link import RedisDownError, RedisLink
from strata.platform.settings import CacheSettings
from strata.platform.single_flight import Flight, SingleFlight
from strata.tenancy.context import TenantContext
from strata.tenancy.context_loader import CatalogUnavailableError, ContextLoader, NameKind, TenantSnapshot
from strata.tenancy.context_store import ContextStore
from strata.tenancy.errors import UnknownTenantError

log = structlog.get_logger(__name__)

CHANNEL = "strata:contexts"
_READS_BEFORE_GIVING_IN = 4
_REPLAY_EVERY_S = 0.25

Name = tuple[NameKind, str]
Key = UUID | Name


class Announcement(msgspec.Struct, frozen=True):
    """A tenant changed. Version 0: the announcer could not tell the version; drop whatever is held."""

    id: UUID
    version: int
    names: list[Name]


class _Held:
    __slots__ = ("read_at", "snapshot")

    def __init__(self, snapshot: TenantSnapshot, read_at: float) -> None:
        self.snapshot = snapshot
        self.read_at = read_at


class ContextCache:
    """One per process; made before `link.start()`, closed before `link.close()`."""

    def __init__(
        self,
        loader: ContextLoader,
        link: RedisLink,
        settings: CacheSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loader = loader
        self._link = link
        self._settings = settings
        self._clock = clock
        self._store = ContextStore(link, ttl_s=settings.context_ttl_s)
        self._held: OrderedDict[UUID, _Held] = OrderedDict()
        self._names: dict[Name, UUID] = {}
        self._unknown: OrderedDict[Key, float] = OrderedDict()
        self._floors: OrderedDict[UUID, int] = OrderedDict()
        self._flights: SingleFlight[Key, TenantSnapshot | None] = SingleFlight()
        self._catalog_reads: SingleFlight[UUID, TenantSnapshot | None] = SingleFlight()
        self._unsent: set[UUID] = set()
        self._replay: asyncio.Task[None] | None = None
        link.listen(CHANNEL, self._hear)
        link.on_up(self.clear)

    async def close(self) -> None:
        if self._replay is not None:
            self._replay.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._replay

    # Asking

    def peek(self, tenant_id: UUID) -> TenantSnapshot | None:
        """What this process holds and may use now, without waiting for anything."""
        held = self._held.get(tenant_id)
        if held is None:
            return None
        age_s = self._clock() - held.read_at
        if age_s >= self._settings.context_ttl_without_redis_s and (
            age_s >= self._settings.context_ttl_s or not self._link.up
        ):
            return None
        self._held.move_to_end(tenant_id)
        return held.snapshot

    def held(self, tenant_id: UUID) -> TenantContext | None:
        """The context, if this process has it: it has worked for the tenant lately."""
        snapshot = self.peek(tenant_id)
        return None if snapshot is None else snapshot.context

    def peek_name(self, kind: NameKind, name: str) -> TenantSnapshot | None:
        tenant_id = self._names.get((kind, name))
        if tenant_id is None:
            return None
        snapshot = self.peek(tenant_id)
        return snapshot if snapshot is not None and snapshot.answers_to(kind, name) else None

    async def get_by_id(self, tenant_id: UUID) -> TenantContext:
        """Raises UnknownTenantError, CatalogUnavailableError; as all of these."""
        return _context(await self._get(tenant_id, self.peek(tenant_id)), str(tenant_id))

    async def get_by_slug(self, slug: str) -> TenantContext:
        return await self.get_by_name(NameKind.SLUG, slug)

    async def get_by_domain(self, hostname: str) -> TenantContext:
        return await self.get_by_name(NameKind.DOMAIN, hostname)

    async def get_by_name(self, kind: NameKind, name: str) -> TenantContext:
        return _context(await self._get((kind, name), self.peek_name(kind, name)), name)

    async def fresh(self, tenant_id: UUID) -> TenantContext:
        """As the catalog has it now, past every cache; callers at the same time share one query that none of them precedes."""
        return _context(await self._catalog_reads.join_next(tenant_id, self._read_again(tenant_id)), str(tenant_id))

    # Telling

    async def announce(self, tenant_id: UUID) -> None:
        """After the commit that changed a tenant: every process uses the change from now on, this one at once.

        Never fails the caller, whose change is committed: what cannot be said now is said later.
        """
        self._hear_of(Announcement(tenant_id, 0, []))
        try:
            snapshot = await self._catalog_reads.join_next(tenant_id, self._read_again(tenant_id))
        except CatalogUnavailableError:
            snapshot = None
        if snapshot is None:
            told = await self._store.forget(tenant_id) and await self._publish(Announcement(tenant_id, 0, []))
        else:
            announcement = Announcement(tenant_id, snapshot.version, snapshot.names())
            self._hear_of(announcement)
            # The store first: who hears of the change and asks Redis shall find the new one.
            told = await self._store.write(snapshot) and await self._publish(announcement)
        if not told:
            self._unsent.add(tenant_id)
            if self._replay is None or self._replay.done():
                self._replay = asyncio.create_task(self._replay_unsent())

    def clear(self) -> None:
        """Forget everything but the versions known to be out of date; flights under way are not believed either."""
        self._held.clear()
        self._names.clear()
        self._unknown.clear()
        self._flights.outdate_all()
        self._catalog_reads.outdate_all()

    # Fetching

    async def _get(self, key: Key, held: TenantSnapshot | None) -> TenantSnapshot | None:
        if held is not None:
            return held
        if self._unknown and self._is_unknown(key):
            return None
        try:
            return await self._flights.join(key, self._fetch(key))
        except CatalogUnavailableError:
            # Nobody can change a tenant in a catalog that is down: what was read less than the time-to-live ago serves.
            snapshot = self._within_ttl(key)
            if snapshot is None:
                raise
            return snapshot

    def _fetch(self, key: Key) -> Callable[[Flight[TenantSnapshot | None]], Awaitable[TenantSnapshot | None]]:
        async def fetch(flight: Flight[TenantSnapshot | None]) -> TenantSnapshot | None:
            stored = await self._from_store(key, flight)
            if stored is not None:
                return stored
            return await self._from_catalog(
                flight, lambda: self._loader.by_id(key) if isinstance(key, UUID) else self._loader.by_name(*key), key
            )

        return fetch

    def _read_again(
        self, tenant_id: UUID
    ) -> Callable[[Flight[TenantSnapshot | None]], Awaitable[TenantSnapshot | None]]:
        async def read(flight: Flight[TenantSnapshot | None]) -> TenantSnapshot | None:
            return await self._from_catalog(flight, lambda: self._loader.by_id(tenant_id), tenant_id)

        return read

    async def _from_store(self, key: Key, flight: Flight[TenantSnapshot | None]) -> TenantSnapshot | None:
        if not self._link.up:
            return None
        flight.outdated = False
        tenant_id = key if isinstance(key, UUID) else await self._store.tenant_named(*key)
        if tenant_id is None:
            return None
        found = await self._store.read(tenant_id)
        if found is None or flight.outdated:
            return None
        snapshot, age_s = found
        if snapshot.version < self._floors.get(tenant_id, 0) or age_s >= self._settings.context_ttl_s:
            return None
        if not isinstance(key, UUID) and not snapshot.answers_to(*key):
            return None
        self._keep(snapshot, self._clock() - age_s)
        return snapshot

    async def _from_catalog(
        self, flight: Flight[TenantSnapshot | None], read: Callable[[], Awaitable[TenantSnapshot | None]], key: Key
    ) -> TenantSnapshot | None:
        for _ in range(_READS_BEFORE_GIVING_IN):
            flight.outdated = False
            read_at = self._clock()
            snapshot = await read()
            if not flight.outdated and (snapshot is None or snapshot.version >= self._floors.get(snapshot.id, 0)):
                await self._keep_read(key, snapshot, read_at)
                return snapshot
        # Announced faster than it can be read, or the catalog was restored from a backup: true enough, but not to be kept.
        return await read()

    async def _keep_read(self, key: Key, snapshot: TenantSnapshot | None, read_at: float) -> None:
        if snapshot is None or snapshot.context is None:
            self._keep_unknown(key)
        if snapshot is not None:
            self._keep(snapshot, read_at)
            await self._store.write(snapshot, age_s=self._clock() - read_at)

    # Keeping

    def _keep(self, snapshot: TenantSnapshot, read_at: float) -> None:
        if snapshot.version < self._floors.get(snapshot.id, 0):
            return
        held = self._held.get(snapshot.id)
        if held is not None and (held.snapshot.version, held.read_at) > (snapshot.version, read_at):
            return
        self._drop(snapshot.id)
        if snapshot.context is None:
            self._keep_unknown(snapshot.id)
            return
        self._held[snapshot.id] = _Held(snapshot, read_at)
        for name in snapshot.names():
            self._names[name] = snapshot.id
            self._unknown.pop(name, None)
        self._unknown.pop(snapshot.id, None)
        if len(self._held) > self._settings.contexts_in_process:
            self._drop(next(iter(self._held)))

    def _drop(self, tenant_id: UUID) -> None:
        held = self._held.pop(tenant_id, None)
        if held is None:
            return
        for name in held.snapshot.names():
            if self._names.get(name) == tenant_id:
                del self._names[name]

    def _keep_unknown(self, key: Key) -> None:
        self._unknown[key] = self._clock() + self._settings.unknown_ttl_s
        self._unknown.move_to_end(key)
        if len(self._unknown) > self._settings.contexts_in_process:
            self._unknown.popitem(last=False)

    def _is_unknown(self, key: Key) -> bool:
        until = self._unknown.get(key)
        if until is None:
            return False
        if until <= self._clock():
            del self._unknown[key]
            return False
        return True

    def _within_ttl(self, key: Key) -> TenantSnapshot | None:
        tenant_id = key if isinstance(key, UUID) else self._names.get(key)
        held = None if tenant_id is None else self._held.get(tenant_id)
        if held is None or self._clock() - held.read_at >= self._settings.context_ttl_s:
            return None
        return held.snapshot

    # Hearing and publishing

    def _hear(self, message: bytes) -> None:
        try:
            announcement = _DECODER.decode(message)
        except msgspec.DecodeError as error:
            log.warning("context.announcement_unreadable", error=str(error))
            # Something was said about some tenant; the safe reading is that it was about all of them.
            self.clear()
            return
        self._hear_of(announcement)

    def _hear_of(self, announcement: Announcement) -> None:
        tenant_id, version = announcement.id, announcement.version
        if version:
            self._floors[tenant_id] = max(version, self._floors.get(tenant_id, 0))
            self._floors.move_to_end(tenant_id)
            if len(self._floors) > 4 * self._settings.contexts_in_process:
                self._floors.popitem(last=False)
        held = self._held.get(tenant_id)
        if held is not None and (not version or held.snapshot.version < version):
            self._drop(tenant_id)
        keys: list[Key] = [tenant_id, *announcement.names]
        for key in keys:
            self._unknown.pop(key, None)
            self._flights.outdate(key)
        self._catalog_reads.outdate(tenant_id)

    async def _publish(self, announcement: Announcement) -> bool:
        message = _ENCODER.encode(announcement)
        try:
            await self._link.run(lambda client: client.publish(CHANNEL, message))
        except RedisDownError:
            return False
        return True

    async def _replay_unsent(self) -> None:
        while self._unsent:
            await asyncio.sleep(_REPLAY_EVERY_S)
            if not self._link.up:
                continue
            for tenant_id in list(self._unsent):
                self._unsent.discard(tenant_id)
                await self.announce(tenant_id)


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Announcement)


def _context(snapshot: TenantSnapshot | None, name: str) -> TenantContext:
    if snapshot is None or snapshot.context is None:
        raise UnknownTenantError(name)
    return snapshot.context
