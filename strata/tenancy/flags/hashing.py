"""Who is within a share: a number from 0 to 9,999 for each seed, flag and tenant, the same for ever and everywhere.

Version 1: murmur3 (x86, 32 bits, seed 0) of the UTF-8 of the flag's seed, a zero byte, the flag's key, a zero byte and the
16 bytes of the tenant's id, as an unsigned number, modulo 10,000. Somebody is within a share when the number is below it:
raising the share only adds. A flag keeps the version it was made with, so that a better hash would move nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from mmh3 import mmh3_32_uintdigest

from strata.tenancy.flags.model import EVERYBODY, HASH_VERSION

Bucket = Callable[[UUID], int]
HASH_VERSIONS = frozenset({HASH_VERSION})


def bucket_of(seed: str, key: str) -> Bucket:
    prefix = seed.encode() + b"\0" + key.encode() + b"\0"

    def bucket(tenant_id: UUID) -> int:
        return mmh3_32_uintdigest(prefix + tenant_id.bytes) % EVERYBODY

    return bucket
