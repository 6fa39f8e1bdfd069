"""A token bucket of a minute's requests: the common one in Redis, and what this process has of it.

The bucket in Redis is the truth: it holds at most a minute's tokens and fills evenly. A process takes tokens out of it
before it spends them, several at a time when it is asked often, and brings back what it has not spent within `lease_s`.
So all processes together never let through more than the bucket gave: in any T seconds at most

    per_minute + per_minute * T / 60 + what was out on lease when they began (below a twentieth of a minute's a process)

and at worst that twentieth lies unused in a process for `lease_s` while another one refuses.
"""

from __future__ import annotations

import math

MINUTE_S = 60.0
_LEASED_PART = 20
_MOST_LEASED = 500

# One call takes from all the buckets a request counts against, and takes back what is left of earlier leases.
# ARGV a bucket: capacity, wanted, given back. Answer a bucket: taken, left, milliseconds until one is there (0: now).
TAKE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local answer = {}
for i = 1, #KEYS do
    local capacity, wanted, back = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
    local held = redis.call('HMGET', KEYS[i], 'tokens', 'at')
    local tokens = tonumber(held[1]) or capacity
    local at = tonumber(held[2]) or now
    tokens = math.min(capacity, tokens + math.max(0, now - at) * capacity / 60000 + back)
    local taken = math.min(wanted, math.floor(tokens))
    tokens = tokens - taken
    local wait = 0
    if tokens < 1 then wait = math.ceil((1 - tokens) * 60000 / capacity) end
    redis.call('HSET', KEYS[i], 'tokens', tostring(tokens), 'at', tostring(now))
    redis.call('PEXPIRE', KEYS[i], 120000)
    answer[3 * i - 2] = taken
    answer[3 * i - 1] = math.floor(tokens)
    answer[3 * i] = wait
end
return answer
"""


class Bucket:
    """What this process has of one bucket: leased tokens, and a share of its own for when Redis does not answer."""

    __slots__ = (
        "_local",
        "_local_at",
        "_local_share",
        "_spent_since",
        "_taken_at",
        "empty_until",
        "held",
        "held_until",
        "key",
        "left",
        "limit",
        "name",
        "per_minute",
        "used_at",
    )

    def __init__(self, name: str, key: str, limit: int, now: float) -> None:
        self.name = name
        self.key = key
        self.limit = limit
        # A limit of 0 is a bucket that is never opened.
        self.per_minute = max(1, limit)
        self.held = 0
        self.held_until = now
        self.left = limit
        self.empty_until = 0.0 if limit else math.inf
        """Until then the common bucket has nothing; asking again would be of no use."""
        self.used_at = now
        self._taken_at = now
        self._spent_since = 0
        self._local = 0.0
        self._local_at = 0.0
        self._local_share = 0.0

    def spendable(self, now: float) -> bool:
        return self.held > 0 and now < self.held_until

    def spend(self) -> None:
        self.held -= 1
        self._spent_since += 1

    def runs_low(self) -> bool:
        return self.held * 4 < self._spent_since

    def wanted(self, waiting: int, now: float, lease_s: float) -> int:
        """For those who wait, and what will be asked for within a lease, going by what was asked for since the last."""
        since_s = max(now - self._taken_at, lease_s / 4)
        foreseen = int(self._spent_since / since_s * lease_s)
        return waiting + min(foreseen, self.per_minute // _LEASED_PART, _MOST_LEASED)

    def give_back(self) -> int:
        """Take what is unspent out of this process, for the common bucket."""
        unspent, self.held = self.held, 0
        return unspent

    def receive(self, taken: int, left: int, wait_ms: int, now: float, lease_s: float) -> None:
        self.held += taken
        self.held_until = now + lease_s
        self.left = left
        self.empty_until = now + wait_ms / 1000 if taken == 0 else 0.0
        self._taken_at, self._spent_since = now, 0
        self._local_share = 0.0

    def available(self) -> int:
        return self.held + self.left

    def full_in_s(self) -> int:
        return math.ceil(max(0, self.per_minute - self.available()) * MINUTE_S / self.per_minute)

    def local_tokens(self, processes: int, now: float) -> float:
        """Of this process's own share of the limit, which fills like the bucket does. It begins with its part of what
        was left when Redis last spoke.
        """
        share = max(1.0, self.per_minute / processes)
        if not self._local_share:
            self._local = min(share, max(1.0, self.available() / processes))
        else:
            self._local = min(share, self._local + (now - self._local_at) * share / MINUTE_S)
        self._local_share, self._local_at = share, now
        return self._local

    def spend_local(self) -> None:
        self._local -= 1
        self.left = max(0, self.left - 1)

    def local_wait_s(self) -> float:
        return max(0.0, 1 - self._local) * MINUTE_S / self._local_share
