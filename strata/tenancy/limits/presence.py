"""How many processes serve requests right now: what one of them may let through by itself is its share."""

from __future__ import annotations

import secrets

import redis.asyncio

from strata.platform.redis_link import RedisDownError, RedisLink

_KEY = "strata:processes"
_GONE_AFTER_MS = 5_000

# By Redis's clock: no two machines need to agree on the time.
_SIGN_IN = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
"""


class Presence:
    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._name = secrets.token_hex(8)
        self._signed_in = False
        self.processes = 1
        """The last number known: while Redis is away nobody comes or goes, as far as anybody can tell."""

    async def sign_in(self) -> None:
        """To be repeated more often than a process is given up for gone."""

        async def command(client: redis.asyncio.Redis) -> int:
            return int(await client.eval(_SIGN_IN, 1, _KEY, self._name, str(_GONE_AFTER_MS)))

        try:
            self.processes = max(1, await self._link.run(command, telling=False))
            self._signed_in = True
        except RedisDownError:
            return

    async def sign_out(self) -> None:
        if not self._signed_in:
            return
        try:
            await self._link.run(lambda client: client.zrem(_KEY, self._name), telling=False)
        except RedisDownError:
            return
