"""Requests a minute, of a tenant and of each key (subject of a token) within it.

Most requests spend a token that this process holds already, and ask nobody. The others cost one round trip for both
buckets, for which they wait `redis_patience_s` at most: then, or when Redis is known to be away, this process's own share
of the limit decides (bucket.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from uuid import UUID

import redis.asyncio
import redis.exceptions
import structlog

from strata.platform.redis_link import RedisDownError, RedisLink
from strata.platform.settings import LimitSettings
from strata.tenancy.limits.bucket import MINUTE_S, TAKE, Bucket
from strata.tenancy.limits.errors import RateExceededError
from strata.tenancy.limits.presence import Presence
from strata.tenancy.plans import Limits

log = structlog.get_logger(__name__)

TENANT, KEY = "tenant", "key"
POLICY_HEADER, STANDING_HEADER = "RateLimit-Policy", "RateLimit"
_SHA = hashlib.sha1(TAKE.encode(), usedforsecurity=False).hexdigest()
_MOST_ALLOWANCES = 10_000
_FORGET_AFTER_S = 60.0
_SLOW_FOR_S = 1.0

Answer = list[int]


class Allowance:
    """The buckets that requests of one key count against."""

    __slots__ = ("buckets", "limits", "policy", "refilling", "used_at", "waiting")

    def __init__(self, buckets: Sequence[Bucket], limits: Limits, now: float) -> None:
        self.buckets = tuple(buckets)
        self.limits = limits
        self.used_at = now
        self.refilling: asyncio.Task[None] | None = None
        self.waiting = 0
        self.policy = ", ".join(f'"{each.name}";q={each.limit};w=60' for each in buckets).encode()

    def spend(self, now: float) -> bool:
        self.used_at = now
        for bucket in self.buckets:
            if not bucket.spendable(now):
                return False
        for bucket in self.buckets:
            bucket.spend()
        return True

    def runs_low(self) -> bool:
        return any(bucket.runs_low() for bucket in self.buckets)

    def standing(self) -> bytes:
        """The RateLimit header: what is left, and in how many seconds the whole quota will be there again."""
        return ", ".join(f'"{each.name}";r={each.available()};t={each.full_in_s()}' for each in self.buckets).encode()

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"ratelimit-policy", self.policy), (b"ratelimit", self.standing())]


class RateStatistics:
    """Counted since the process began."""

    __slots__ = ("by_lease", "by_own_share", "refills", "refused", "unanswered", "waited")

    def __init__(self) -> None:
        self.by_lease = 0
        self.by_own_share = 0
        self.refused = 0
        self.refills = 0
        self.waited = 0
        """Requests that waited for a refill."""
        self.unanswered = 0
        """Refills that Redis did not answer, or not in time."""


class RateLimiter:
    """One per process."""

    def __init__(self, link: RedisLink, settings: LimitSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._settings = settings
        self._clock = clock
        self._allowances: OrderedDict[tuple[UUID, str], Allowance] = OrderedDict()
        self._of_tenants: dict[UUID, Bucket] = {}
        self._slow_until = 0.0
        self._ticking: asyncio.Task[None] | None = None
        self._refills: set[asyncio.Task[None]] = set()
        self.presence = Presence(link)
        self.statistics = RateStatistics()

    @property
    def alone(self) -> bool:
        """Whether this process decides by its own share at present."""
        return not self._link.up or self._clock() < self._slow_until

    def allowance(self, tenant_id: UUID, subject: str, limits: Limits) -> Allowance | None:
        """None: nothing limits it."""
        found = self._allowances.get((tenant_id, subject))
        if found is not None and (found.limits is limits or found.limits == limits):
            return found
        return self._new(tenant_id, subject, limits)

    async def spend(self, allowance: Allowance) -> None:
        """Count one request, or raise RateExceededError."""
        now = self._clock()
        if allowance.spend(now):
            self.statistics.by_lease += 1
            if allowance.refilling is None and allowance.runs_low() and not self.alone:
                _ = self._refill(allowance)
            return
        await self._spend_unheld(allowance)

    async def close(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
            for allowance in self._allowances.values():
                for bucket in allowance.buckets:
                    bucket.held_until = 0.0
            await self._bring_back()
            await self.presence.sign_out()
        for task in list(self._refills):
            task.cancel()

    def _new(self, tenant_id: UUID, subject: str, limits: Limits) -> Allowance | None:
        if limits.api_rate_per_minute is None and limits.api_rate_per_key_per_minute is None:
            return None
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick(), name="rate-limits")
        now = self._clock()
        buckets = []
        if limits.api_rate_per_minute is not None:
            common = self._of_tenants.get(tenant_id)
            if common is None or common.limit != limits.api_rate_per_minute:
                common = Bucket(TENANT, f"strata:{{{tenant_id}}}:rate", limits.api_rate_per_minute, now)
                self._of_tenants[tenant_id] = common
            buckets.append(common)
        if limits.api_rate_per_key_per_minute is not None:
            digest = hashlib.blake2b(subject.encode(), digest_size=12).hexdigest()
            buckets.append(
                Bucket(KEY, f"strata:{{{tenant_id}}}:rate:{digest}", limits.api_rate_per_key_per_minute, now)
            )
        made = self._allowances[tenant_id, subject] = Allowance(buckets, limits, now)
        if len(self._allowances) > _MOST_ALLOWANCES:
            self._allowances.popitem(last=False)
        return made

    async def _spend_unheld(self, allowance: Allowance) -> None:
        until = self._clock() + self._settings.redis_patience_s
        allowance.waiting += 1
        try:
            # Again and again while Redis answers: what came may have been spent by other keys of the tenant.
            while True:
                now = self._clock()
                empty = [bucket for bucket in allowance.buckets if now < bucket.empty_until]
                if empty:
                    until_then = max(bucket.empty_until for bucket in empty) - now
                    raise self._refusal(allowance, empty, min(until_then, MINUTE_S))
                if self.alone or now >= until:
                    break
                # Shielded by being a task of its own: what it brings late, the next request spends.
                task = allowance.refilling or self._refill(allowance)
                self.statistics.waited += 1
                await asyncio.wait([task], timeout=until - now)
                if not task.done():
                    # The others shall not wait for the same.
                    self._slow_until = self._clock() + _SLOW_FOR_S
                if allowance.spend(self._clock()):
                    self.statistics.by_lease += 1
                    return
        finally:
            allowance.waiting -= 1
        self._spend_share(allowance)

    def _spend_share(self, allowance: Allowance) -> None:
        now, processes = self._clock(), self.presence.processes
        # All of them are looked at, so that all of them fill.
        empty = [bucket for bucket in allowance.buckets if bucket.local_tokens(processes, now) < 1]
        if empty:
            raise self._refusal(allowance, empty, max(bucket.local_wait_s() for bucket in empty))
        for bucket in allowance.buckets:
            bucket.spend_local()
        self.statistics.by_own_share += 1

    def _refusal(self, allowance: Allowance, empty: Sequence[Bucket], wait_s: float) -> RateExceededError:
        self.statistics.refused += 1
        standing = ", ".join(
            f'"{each.name}";r={0 if each in empty else each.available()};t={each.full_in_s()}'
            for each in allowance.buckets
        )
        headers = {POLICY_HEADER: allowance.policy.decode(), STANDING_HEADER: standing}
        return RateExceededError([bucket.name for bucket in empty], retry_after_s=wait_s, headers=headers)

    def _refill(self, allowance: Allowance) -> asyncio.Task[None]:
        task = allowance.refilling = asyncio.create_task(self._take(allowance))
        self._refills.add(task)
        task.add_done_callback(self._refills.discard)
        return task

    async def _take(self, allowance: Allowance) -> None:
        began, lease_s = self._clock(), self._settings.lease_s
        buckets = allowance.buckets
        # A lease that has run out is not spent any more, so it goes back with the same message.
        orders = [
            (
                bucket,
                bucket.wanted(allowance.waiting, began, lease_s),
                0 if bucket.spendable(began) else bucket.give_back(),
            )
            for bucket in buckets
        ]
        try:
            answer = await self._asked(orders)
        except RedisDownError:
            answer = None
        finally:
            allowance.refilling = None
        now = self._clock()
        self.statistics.refills += 1
        if answer is None or now - began > self._settings.redis_patience_s:
            self.statistics.unanswered += 1
            self._slow_until = now + _SLOW_FOR_S
        if answer is not None:
            for number, bucket in enumerate(buckets):
                taken, left, wait_ms = answer[3 * number : 3 * number + 3]
                bucket.receive(taken, left, wait_ms, now, lease_s)

    async def _asked(self, orders: Sequence[tuple[Bucket, int, int]]) -> Answer:
        keys = [bucket.key for bucket, _, _ in orders]
        arguments = [str(number) for bucket, wanted, back in orders for number in (bucket.per_minute, wanted, back)]

        async def command(client: redis.asyncio.Redis) -> Answer:
            try:
                answer: Answer = await client.evalsha(_SHA, len(keys), *keys, *arguments)
            except redis.exceptions.NoScriptError:
                answer = await client.eval(TAKE, len(keys), *keys, *arguments)
            return answer

        return await self._link.run(command, telling=False)

    async def _tick(self) -> None:
        while True:
            await self.presence.sign_in()
            await asyncio.sleep(self._settings.lease_s)
            await self._bring_back()

    async def _bring_back(self) -> None:
        """What was leased and not spent in time; and forget those who have not been here for long."""
        now = self._clock()
        held: dict[str, Bucket] = {}
        for name, allowance in list(self._allowances.items()):
            for bucket in allowance.buckets:
                if bucket.held and now >= bucket.held_until:
                    held[bucket.key] = bucket
            if now - allowance.used_at > _FORGET_AFTER_S and allowance.refilling is None:
                del self._allowances[name]
        if not any(held):
            self._forget_tenants()
            return
        for bucket in held.values():
            # One call each: on a Redis Cluster the buckets of two tenants lie on two servers.
            try:
                await self._asked([(bucket, 0, bucket.give_back())])
            except RedisDownError:
                return
        self._forget_tenants()

    def _forget_tenants(self) -> None:
        used = {tenant_id for tenant_id, _ in self._allowances}
        self._of_tenants = {tenant_id: bucket for tenant_id, bucket in self._of_tenants.items() if tenant_id in used}
